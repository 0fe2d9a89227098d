"""A pytest plugin for runs on several machines: what has passed on one need not run on the next.

`--passed-to=FILE` lists the tests that passed. `--passed-in=FILE` leaves those out, unless they use a program
that may be another one here: acceptance tests, and those that use the server of Redis that the product finds.
"""

from __future__ import annotations

from pathlib import Path

import pytest

SERVERS = {"own_redis", "redis_servers"}
"""Fixtures that start the server that the product finds."""

NAMED = {"redis_client", "redis_version"}
"""Parameters that name a server. Its tests have it in their ids."""


class Passed:
    """Keeps the ids of tests that passed."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._ids: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" and report.passed:
            self._ids.append(report.nodeid)

    def pytest_sessionfinish(self) -> None:
        self._file.write_text("".join(f"{each}\n" for each in self._ids), "utf-8")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--passed-to", type=Path, help="list the tests that pass in this file")
    parser.addoption("--passed-in", type=Path, help="leave out tests in this file that would show the same")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("passed_to") and not hasattr(config, "workerinput"):  # one process sees all reports
        config.pluginmanager.register(Passed(config.getoption("passed_to")))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("passed_in") is None:
        return
    passed = set(config.getoption("passed_in").read_text("utf-8").splitlines())
    shown = [item for item in items if item.nodeid in passed and not uses_a_program_of_the_machine(item)]
    config.hook.pytest_deselected(items=shown)
    left_out = set(shown)
    items[:] = [item for item in items if item not in left_out]


def uses_a_program_of_the_machine(item: pytest.Item) -> bool:
    """Whether the test may use another program on another machine."""
    if "acceptance" in item.path.parts:
        return True
    assert isinstance(item, pytest.Function)
    named = hasattr(item, "callspec") and NAMED & item.callspec.params.keys()
    return bool(SERVERS & set(item.fixturenames)) and not named
