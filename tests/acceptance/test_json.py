"""docs/json.md says what each command prints with --json: every field, and its type."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import typer
from support.command_line import dispatcher
from support.eventually import eventually
from support.json_page import differences, sections
from support.plans import abort_plan

from conformance.check import Grade
from conformance.checks import ABILITIES
from conformance.effect import Effect, Round
from conformance.report import Finding, Report, Result
from dispatcher.cli import whole_app
from dispatcher.cli.json_lines import JSON_VERSION

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support.processes import Workers
    from support.stub_executor import StubExecutor

    Lines = Callable[..., list[dict[str, Any]]]

PLAN = abort_plan().model_dump(mode="json", exclude_none=True)
LONG = PLAN | {"duration_seconds": 600, "api": "/long"}


@pytest.fixture
def lines(redis_url: str) -> Lines:
    """What a command prints with --json, each line as the page says."""

    def printed(command: str, *arguments: str, text: str = "", **environment: str) -> list[dict[str, Any]]:
        done = dispatcher(
            *command.split(), *arguments, "--json", text=text, DISPATCHER_REDIS_URL=redis_url, **environment
        )
        assert "Traceback" not in done.stderr
        found = [json.loads(line) for line in done.stdout.splitlines()]
        assert found, done.stderr
        assert [line for each in found for line in differences(command, each)] == []
        return found

    return printed


def test_plans_from_their_submission_to_their_end(start: Workers, stub: StubExecutor, lines: Lines) -> None:
    start(stub.url, DISPATCHER_EXECUTORS__DEFAULT__INITIAL_RETRY_DELAY_SEC="0.1")
    stub.answers += [(503, {"message": "busy"}), (400, {"message": "no such api"})]
    [failed] = lines("run", "-", text=json.dumps(PLAN))
    assert failed["error"]["type"] == "ExecutorRejectedError"
    [observed] = lines("run", "-", text=json.dumps(PLAN))
    assert "observation" in observed
    lines("result", observed["id"])
    [status] = lines("status", failed["id"])
    assert [(each["attempt"], "busy" in each["cause"]) for each in status["failures"]] == [
        (1, True),
        (2, False),
    ]
    [submitted] = lines("submit", "-", text=json.dumps(LONG))
    eventually(lambda: stub.running)
    [watched] = lines("watch")
    assert watched["id"] == submitted["id"]
    lines("metrics")
    lines("health")
    lines("doctor", DISPATCHER_EXECUTORS__DEFAULT__BASE_URL=stub.url)
    lines("cancel", submitted["id"])


def test_what_operators_do(lines: Lines) -> None:
    lines("halt", "maintenance")
    assert [each["level"] for each in lines("doctor") if each["what"] == "halt"] == ["warning"]
    [refused] = lines("submit", "-", text=json.dumps(PLAN))
    assert refused["error"]["type"] == "DispatchHaltedError"
    lines("resume")
    lines("release", "PaymentService", "/pay", "--reason", "it is well")
    for command in ("open", "disable", "close", "reset"):
        lines(f"breaker {command}")
        [shown] = lines("breaker show")
        assert shown["by_hand"] is (command in {"open", "disable"})


def test_plan_files_that_are_checked(lines: Lines, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps([PLAN, PLAN | {"percentage": 101}]))
    found = lines("plan check", str(tmp_path / "a.json"), str(tmp_path))
    assert [(each["number"], each["valid"]) for each in found] == [(1, True), (2, False), (None, False)]
    assert [each["field"] for each in found[1]["problems"]] == ["percentage"]


def test_what_conformance_finds() -> None:
    finding = Finding("apply", Grade.REQUIRED, Result.PASSED, "200", "200", "nothing", 0.1)
    report = Report("http://executor", dict.fromkeys(ABILITIES, True), [finding])
    effect = Effect("http://executor", [Round(0.1, None, 0.2), Round(0.1, 0.2, 0.3)])
    assert differences("conformance", as_printed(report.fields)) == []
    assert differences("conformance --measure-effect", as_printed(effect.fields)) == []


def as_printed(fields: dict[str, object]) -> dict[str, Any]:
    printed: dict[str, Any] = json.loads(json.dumps({"version": JSON_VERSION, **fields}))
    return printed


def test_every_command_with_json_has_a_section() -> None:
    assert set(commands_with_json()) - set(sections()) == set()


def commands_with_json(group: Any = None, before: str = "") -> Iterator[str]:
    """Names of all commands that take --json, those in groups with the group's name in front."""
    command = group or typer.main.get_command(whole_app())
    if not hasattr(command, "commands"):
        if any("--json" in option.opts for option in command.params):
            yield before.strip()
        return
    for name, each in command.commands.items():
        yield from commands_with_json(each, f"{before} {name}")
