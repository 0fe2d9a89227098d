"""Pages and pictures that are made from code are those that the code makes now."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args
from xml.etree import ElementTree as ET

import pytest
from pydantic import BaseModel

import dispatcher
from dispatcher import PlanState, Settings
from dispatcher.settings import reference
from dispatcher.settings.reference import SECTIONS, meaning_of, unit_of
from docs.tools import api_pages, check_reference, command_reference
from docs.tools.pictures import PICTURES, PLACES
from docs.tools.transitions import TRANSITIONS

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCS = Path(__file__).parents[2] / "docs"
SVG = "{http://www.w3.org/2000/svg}"
TIMES_BY_NAME = {
    "circuit_breaker_recovery_per_sec": "per second",
    "lease_sec": "seconds",
    "max_log_bytes": "bytes",
}


def models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The sections that a setting of this type may hold."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for each in get_args(annotation):
        yield from models(each)


def all_sections(model: type[BaseModel]) -> set[type[BaseModel]]:
    found = {model}
    for field in model.model_fields.values():
        for inner in models(field.annotation):
            found |= all_sections(inner)
    return found


def test_the_page_of_settings_is_what_their_classes_say() -> None:
    assert (DOCS / "settings.md").read_text("utf-8") == reference.document(), "run `make docs`"


def test_the_page_of_commands_is_what_their_help_says() -> None:
    assert (DOCS / "cli.md").read_text("utf-8") == command_reference.document(), "run `make docs`"


def test_the_page_of_checks_is_what_the_checks_say() -> None:
    assert (DOCS / "conformance.md").read_text("utf-8") == check_reference.document(), "run `make docs`"


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_what_its_table_says(name: str) -> None:
    assert (DOCS / name).read_text("utf-8") == PICTURES[name](), "run `make docs`"


def test_the_page_of_settings_has_each_section() -> None:
    assert {section.model for section in SECTIONS} == all_sections(Settings)


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.table or "top level")
def test_each_setting_has_a_meaning_and_is_on_the_page(section: reference.SectionOfFile) -> None:
    text = reference.document()
    for name, field in section.model.model_fields.items():
        if list(models(field.annotation)):
            continue  # a section of its own
        assert meaning_of(field), name
        assert f"| `{name}`" in text


@pytest.mark.parametrize(("name", "unit"), TIMES_BY_NAME.items())
def test_a_setting_has_the_unit_that_its_name_ends_with(name: str, unit: str) -> None:
    assert unit_of(name) == unit


def test_the_page_of_settings_shows_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPATCHER_REDIS_URL", "redis://:hidden@redis.example/0")
    monkeypatch.setenv("DISPATCHER_EXECUTORS__DEFAULT__TOKEN", "hidden")
    assert "hidden" not in reference.document()


def test_the_api_reference_has_each_public_name_once() -> None:
    shown = [
        line.removeprefix("::: dispatcher.")
        for page in api_pages.api_pages().values()
        for line in page.splitlines()
        if line.startswith("::: dispatcher.")
    ]
    assert sorted(shown) == sorted(dispatcher.__all__)


def test_the_picture_of_states_has_each_state_and_an_arrow_for_each_transition() -> None:
    assert set(PLACES) == set(PlanState)
    root = ET.fromstring(PICTURES["states.svg"]())
    words = {each.text for each in root.iter(f"{SVG}text")}
    assert {state.upper() for state in PlanState} <= words
    arrows = [each for each in root.iter(f"{SVG}path") if "marker-end" in each.attrib]
    loops = [each for each in arrows if "C" in each.attrib["d"]]
    assert len(arrows) - len(loops) == len(TRANSITIONS)
    assert len(loops) == sum(not state.final for state in PlanState)
