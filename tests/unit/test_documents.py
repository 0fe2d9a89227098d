"""What README.md and the pages in docs/ say of files, commands and settings is so."""

from __future__ import annotations

import inspect
import re
import tomllib
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_origin

from pydantic import BaseModel

from dispatcher import Dispatcher, ExecutorClientConfig, FaultPlan, Settings
from dispatcher.cli import OWN

if TYPE_CHECKING:
    from collections.abc import Iterable

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
VARIABLE = re.compile(r"(?<![A-Z_])DISPATCHER_[A-Z0-9_]+")
ASSIGNMENT = re.compile(r"([a-z_]+) = .+")
NAME_WITH_A_UNIT = re.compile(r"[a-z_]+_(sec|bytes)")
FILE = re.compile(r"(?:[\w-]+/)+(?:[\w-]+\.(?:lua|md|py|sh|toml|txt|yaml|yml))?")


def blocks(page: Path, language: str) -> list[str]:
    return [text for name, text in BLOCK.findall(page.read_text("utf-8")) if name == language]


def inline_codes(page: Path) -> list[str]:
    return INLINE.findall(BLOCK.sub("", page.read_text("utf-8")))


def headings(page: Path) -> set[str]:
    """As the anchors of links call them."""
    titles = re.findall(r"^#+ (.+)$", BLOCK.sub("", page.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """The sections that a setting of this type may hold."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for each in get_args(annotation) for model in models_in(each)]


def sections(model: type[BaseModel]) -> Iterable[type[BaseModel]]:
    """The model, and all that are in it."""
    yield model
    for field in model.model_fields.values():
        for inner in models_in(field.annotation):
            yield from sections(inner)


SETTINGS = {name for section in sections(Settings) for name in section.model_fields}
PARAMETERS = {
    name
    for method in (Dispatcher.submit, Dispatcher.health, Dispatcher.apply_and_observe)
    for name in inspect.signature(method).parameters
} | set(FaultPlan.model_fields)


def is_a_setting(model: type[BaseModel], path: list[str]) -> bool:
    """Whether there is one at `["executors", "default", "base_url"]`, for example."""
    field = model.model_fields.get(path[0])
    if field is None:
        return False
    rest = path[1:]
    if get_origin(field.annotation) is dict:
        rest = rest[1:]  # a name that people choose
    inner = models_in(field.annotation)
    return not rest or any(is_a_setting(each, rest) for each in inner)


def test_every_link_leads_somewhere() -> None:
    for page in PAGES:
        for link in LINK.findall(BLOCK.sub("", page.read_text("utf-8"))):
            if re.match(r"https?://", link):
                continue
            path, _, anchor = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            assert target.exists(), (page, link)
            assert target.is_relative_to(ROOT), (page, link)
            assert not anchor or anchor in headings(target), (page, link)


def test_every_file_that_is_named_exists() -> None:
    for page in PAGES:
        for code in inline_codes(page):
            if FILE.fullmatch(code):
                assert (ROOT / code).exists() or (page.parent / code).exists(), (page, code)


def test_every_block_of_settings_is_valid() -> None:
    for page in PAGES:
        for block in blocks(page, "toml"):
            Settings(**tomllib.loads(block))


def test_every_setting_that_is_named_exists() -> None:
    for page in PAGES:
        for code in inline_codes(page):
            if found := ASSIGNMENT.fullmatch(code):
                assert found[1] in SETTINGS, (page, code)
                if found[1] in ExecutorClientConfig.model_fields:
                    ExecutorClientConfig(**tomllib.loads(code))
            if NAME_WITH_A_UNIT.fullmatch(code):
                assert code in SETTINGS | PARAMETERS, (page, code)


def test_every_environment_variable_that_is_named_is_a_setting() -> None:
    for page in PAGES:
        for variable in set(VARIABLE.findall(page.read_text("utf-8"))) - {"DISPATCHER_CONFIG"}:
            path = variable.removeprefix("DISPATCHER_").lower().split("__")
            assert is_a_setting(Settings, path), (page, variable)


def test_every_command_that_is_named_exists() -> None:
    known = set(OWN) | entry_points(group="fault_dispatcher.commands").names | {"COMMAND"}
    for page in PAGES:
        text = page.read_text("utf-8")
        lines = [line for _, block in BLOCK.findall(text) for line in block.splitlines()]
        for line in [*lines, *inline_codes(page)]:
            if found := re.match(r"dispatcher (\w+)", line):
                assert found[1] in known, (page, line)
