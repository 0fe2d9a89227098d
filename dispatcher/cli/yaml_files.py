"""YAML with fault plans in it, read strictly."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Hashable

__all__ = ["documents_of"]

INTEGER, FLOAT = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"
SEQUENCE = "tag:yaml.org,2002:seq"
MERGE = "tag:yaml.org,2002:merge"
KINDS = {"tag:yaml.org,2002:timestamp": "a date and time", "tag:yaml.org,2002:bool": "true or false"}
DECIMAL = re.compile(r"[-+]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?")


def documents_of(text: str) -> list[tuple[int, object]]:
    """The line and the value of each document, with a list of plans taken apart. An empty one is not a plan.

    Raises `ValueError`, with the line at which the text is not strict YAML.
    """
    try:
        return _documents(text)
    except yaml.MarkedYAMLError as exc:
        line = f"line {exc.problem_mark.line + 1}: " if exc.problem_mark is not None else ""
        raise ValueError(f"{line}{exc.problem}") from exc
    except yaml.YAMLError as exc:
        raise ValueError(str(exc)) from exc


def _documents(text: str) -> list[tuple[int, object]]:
    loader, found = _StrictLoader(text), []
    try:
        while loader.check_node():
            document: Any = loader.get_node()
            nodes = document.value if document.tag == SEQUENCE else [document]
            for node in nodes:
                value: Any = loader.construct_document(node)
                if value is not None or node is not document:
                    found.append((node.start_mark.line + 1, value))
    finally:
        loader.dispose()
    return found


class _StrictLoader(yaml.SafeLoader):
    """Safe YAML that refuses what would silently be overwritten, or read as another number."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._checked: set[yaml.MappingNode] = set()

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002
        if node not in self._checked:  # a mapping with an alias comes again, with what `<<` brought
            self._checked.add(node)
            self._check_keys(node)
        return super().construct_mapping(node, deep)

    def _check_keys(self, node: yaml.MappingNode) -> None:
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            if key_node.tag == MERGE:
                continue
            key, line = self.construct_object(key_node, deep=True), key_node.start_mark.line + 1
            if isinstance(key, list | dict | set):
                raise ValueError(f"a key must be a text, line {line}")
            if key in seen:
                raise ValueError(f"{key!r} is given twice, line {line}")
            seen.add(key)


def _number(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> float:
    """A decimal number. YAML 1.1 also has 0144 for 100, 1:00 for 60 and 1_0 for 10."""
    text = str(loader.construct_scalar(node))
    if not DECIMAL.fullmatch(text):
        raise ValueError(f"{text!r} is not a plain decimal number, line {node.start_mark.line + 1}")
    return int(text) if node.tag == INTEGER else float(text)


def _of_its_kind(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> object:
    """A date or a truth value. PyYAML raises any error for what only looks like one, or has its tag."""
    text, kind = str(loader.construct_scalar(node)), KINDS[node.tag]
    try:
        return yaml.SafeLoader.yaml_constructors[node.tag](loader, node)
    except (ValueError, LookupError, AttributeError) as exc:
        raise ValueError(f"{text!r} is not {kind}, line {node.start_mark.line + 1}") from exc


for tag in (INTEGER, FLOAT):
    _StrictLoader.add_constructor(tag, _number)
for tag in KINDS:
    _StrictLoader.add_constructor(tag, _of_its_kind)
