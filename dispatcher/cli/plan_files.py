"""Plan files: YAML, JSON and JSON Lines, one plan or many in each."""

from __future__ import annotations

import glob
import itertools
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from dispatcher.errors import InvalidPlanError
from dispatcher.models import FaultPlan

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable

__all__ = ["read_plans"]

STANDARD_INPUT = "-"
INTEGER, FLOAT = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"
DECIMAL = re.compile(r"[-+]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?")


def read_plans(names: Iterable[str]) -> list[FaultPlan]:
    """All plans in the named files; `-` is standard input, and `*`, `?` and `**` are part of names that they
    match.

    A `.yaml`, `.yml`, `.json`, `.jsonl` or `.ndjson` file is what its name says; the kind of anything else
    follows from its first character. Each holds one plan, or a list or sequence of plans. Raises
    `InvalidPlanError`, which names every wrong field of every plan.
    """
    plans: list[FaultPlan] = []
    problems: list[list[str]] = []
    for name in itertools.chain.from_iterable(map(_matching, names)):
        found = _entries(name)
        if not found:
            problems.append([_shown(name), "holds no plan"])
        for number, entry in enumerate(found, start=1):
            try:
                plans.append(_plan(entry))
            except InvalidPlanError as exc:
                where = f"{_shown(name)}, plan {number}"
                problems += [[f"{where}: {field}", problem] for field, problem in exc.problems]
    if problems:
        raise InvalidPlanError("invalid plans: " + "; ".join(" ".join(each) for each in problems), problems)
    return plans


def _matching(name: str) -> list[str]:
    """The files that a name with wildcards matches. Raises `InvalidPlanError` if there are none."""
    if not glob.has_magic(name) or Path(name).exists():
        return [name]
    matching = glob.glob(name, recursive=True)  # noqa: PTH207 (a Path's own takes no absolute pattern)
    found = sorted(each for each in matching if Path(each).is_file())
    if not found:
        raise InvalidPlanError(f"invalid plans: {name} matches no file", [[name, "matches no file"]])
    return found


def _plan(entry: object) -> FaultPlan:
    if not isinstance(entry, dict):
        raise InvalidPlanError("invalid plan", [["(whole)", "must be a mapping of fields to values"]])
    return FaultPlan.model_validate(entry)


def _entries(name: str) -> list[Any]:
    """What the file holds, as plain data, a list entry for each plan."""
    text = _text(name)
    try:
        return _format(name, text)(text)
    except (ValueError, yaml.YAMLError, RecursionError) as exc:
        problem = f"cannot be read: {' '.join(str(exc).split())}"
        raise InvalidPlanError(f"invalid plans: {_shown(name)} {problem}", [[_shown(name), problem]]) from exc


def _text(name: str) -> str:
    try:
        if name == STANDARD_INPUT:
            return sys.stdin.read()
        return Path(name).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        problem = f"cannot be read: {exc.strerror if isinstance(exc, OSError) else 'it is not UTF-8 text'}"
        raise InvalidPlanError(f"invalid plans: {_shown(name)} {problem}", [[_shown(name), problem]]) from exc


def _format(name: str, text: str) -> Callable[[str], list[Any]]:
    by_suffix: dict[str, Callable[[str], list[Any]]] = {
        ".json": _json,
        ".jsonl": _json_lines,
        ".ndjson": _json_lines,
        ".yaml": _yaml,
        ".yml": _yaml,
    }
    return by_suffix.get(Path(name).suffix.lower()) or _format_by_content(text)


def _format_by_content(text: str) -> Callable[[str], list[Any]]:
    if not text.lstrip().startswith(("{", "[")):
        return _yaml
    lines = [line for line in text.splitlines() if line.strip()]
    each_is_whole = all(line.startswith("{") and line.rstrip().endswith("}") for line in lines)
    return _json_lines if each_is_whole else _json


def _json(text: str) -> list[Any]:
    return _flat([json.loads(text, object_pairs_hook=_unique)])


def _json_lines(text: str) -> list[Any]:
    entries = []
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            try:
                entries.append(json.loads(line, object_pairs_hook=_unique))
            except ValueError as exc:
                raise ValueError(f"line {number}: {exc}") from exc
    return entries


def _yaml(text: str) -> list[Any]:
    return _flat([document for document in yaml.load_all(text, _StrictLoader) if document is not None])


def _flat(documents: list[Any]) -> list[Any]:
    """Documents, with a list of plans taken apart."""
    entries: list[Any] = []
    for document in documents:
        entries += document if isinstance(document, list) else [document]
    return entries


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        twice = next(name for name, _ in pairs if [key for key, _ in pairs].count(name) > 1)
        raise ValueError(f"{twice!r} is given twice")
    return fields


class _StrictLoader(yaml.SafeLoader):
    """Safe YAML that refuses what would silently be overwritten, or read as another number."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None:
            raise ValueError(f"{twice!r} is given twice, line {node.start_mark.line + 1}")
        return super().construct_mapping(node, deep)


def _number(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> float:
    """A decimal number. YAML 1.1 also has 0144 for 100, 1:00 for 60 and 1_0 for 10."""
    text = str(loader.construct_scalar(node))
    if not DECIMAL.fullmatch(text):
        raise ValueError(f"{text!r} is not a plain decimal number, line {node.start_mark.line + 1}")
    return int(text) if node.tag == INTEGER else float(text)


for tag in (INTEGER, FLOAT):
    _StrictLoader.add_constructor(tag, _number)


def _shown(name: str) -> str:
    return "standard input" if name == STANDARD_INPUT else name
