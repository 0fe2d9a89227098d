"""A stored result is data: it chooses among the dispatcher's errors only, and nothing is imported."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from celery import states
from hypothesis import given
from hypothesis import strategies as st

from dispatcher import (
    ExecutorClientError,
    ExecutorServerError,
    PlanCancelledError,
    RawObservation,
    RecordUnreadableError,
    Settings,
    errors,
)
from dispatcher.tasks.app import make_celery
from dispatcher.tasks.results import ResultCodec

if TYPE_CHECKING:
    from pathlib import Path

CODEC = ResultCodec(make_celery(Settings()))
OURS = "dispatcher.errors"
OBSERVATION = RawObservation(
    execution_id="f1", timestamp=datetime.now(UTC), status_code=503, latency_ms=2.0, error_rate=1.0
)


def failure(module: object, kind: object, arguments: object) -> str:
    error = {"exc_type": kind, "exc_module": module, "exc_message": arguments}
    return json.dumps({"status": states.FAILURE, "result": error})


def raised(stored: str) -> ExecutorClientError:
    with pytest.raises(ExecutorClientError) as caught:
        CODEC.decode("p1", stored)
    return caught.value


@pytest.mark.parametrize(
    ("module", "kind", "arguments"),
    [
        ("builtins", "SystemExit", [0]),
        ("builtins", "KeyboardInterrupt", []),
        ("builtins", "StopIteration", []),
        ("os", "system", ["touch started"]),
        ("subprocess", "Popen", [["touch", "started"]]),
        ("celery.exceptions", "Ignore", []),
        ("dispatcher.client", "Dispatcher", []),
        (None, "ExecutorServerError", ["down"]),
        ("no.such.module", "Error", ["x"]),
    ],
)
def test_an_error_of_another_program_is_reported_and_not_raised(
    module: str | None, kind: str, arguments: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    error = raised(failure(module, kind, arguments))
    assert type(error) is ExecutorClientError
    assert f"plan p1 ended with an error of another program: {module}.{kind}(" in str(error)
    assert not (tmp_path / "started").exists()


def test_no_module_is_imported_for_a_stored_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "planted.py").write_text("class PlantedError(Exception): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    raised(failure("planted", "PlantedError", []))
    assert "planted" not in sys.modules


def test_a_foreign_error_reaches_no_terminal_with_its_control_characters() -> None:
    assert str(raised(failure("x\x1b[2J", "Error\n", ["\x07"]))).isprintable()


@pytest.mark.parametrize(
    "stored",
    [
        failure(OURS, "ExecutorServerError", [["a"], {"b": 1}, 3, 4, 5, 6]),
        failure(OURS, "ExecutorServerError", ["down", "503"]),
        failure(OURS, "InvalidPlanError", ["bad", [["only one"], 3]]),
        failure(OURS, "PlanCancelledError", [5]),
        failure(OURS, "NoSuchError", ["x"]),
        failure(OURS, "json", ["x"]),
        failure(OURS, "__doc__", ["x"]),
        failure(None, 5, ["x"]),
        failure(OURS, "PlanCancelledError", "text"),
        json.dumps({"status": states.FAILURE, "result": None}),
        json.dumps({"status": states.FAILURE, "result": {"a": 1}}),
        json.dumps({"status": states.SUCCESS, "result": {"a": 1}}),
        json.dumps({"status": states.RETRY, "result": None}),
        json.dumps({"status": 5, "result": None}),
        "{}",
        "[]",
        "no JSON",
        "",
        "[" * 100_000,
    ],
)
def test_what_cannot_be_read_is_said_in_a_sentence(stored: str) -> None:
    error = raised(stored)
    assert isinstance(error, RecordUnreadableError)
    assert error.plan_id == "p1"
    assert str(error).startswith("the result of plan p1 cannot be read: ")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=5), inside, max_size=3),
    max_leaves=6,
)


@given(kind=st.sampled_from(errors.__all__), arguments=st.lists(JSON, max_size=4))
def test_an_error_with_any_arguments_can_be_read_to_its_end(kind: str, arguments: list[Any]) -> None:
    error = raised(failure(OURS, kind, arguments))
    assert isinstance(str(error), str)
    for name in dir(type(error)):
        if isinstance(getattr(type(error), name), property):
            getattr(error, name)


def test_a_revoked_task_is_read_as_what_its_error_is() -> None:
    meta = json.loads(failure(OURS, "PlanCancelledError", ["enough"])) | {"status": states.REVOKED}
    assert isinstance(raised(json.dumps(meta)), PlanCancelledError)


def test_the_end_of_a_plan_differs_from_a_retry_and_from_what_celery_stores() -> None:
    error = ExecutorServerError("down", 503, "later", 2)
    assert CODEC.is_end(CODEC.encode("p1", error))
    assert CODEC.is_end(CODEC.encode("p1", OBSERVATION))
    retry = CODEC.encode_retry("p1", error)
    assert not CODEC.is_end(retry)
    assert json.loads(retry)["status"] == states.RETRY
    assert not CODEC.is_end(failure(OURS, "PlanUnknownError", ["p1"]))


def test_an_error_has_its_arguments_again() -> None:
    stored = CODEC.encode("p1", ExecutorServerError("down", 503, "later", 2))
    error = raised(stored)
    assert isinstance(error, ExecutorServerError)
    assert error.args == ("down", 503, "later", 2)
