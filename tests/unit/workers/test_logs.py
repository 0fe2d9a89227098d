"""Log lines: what they say of the step that they are from, as text and as JSON."""

from __future__ import annotations

import io
import json
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from celery.utils.log import ColorFormatter
from support.plans import plan_record

from dispatcher.settings.settings import LogFormat
from workers.engine.traces import own_trace_id, step_span
from workers.tasks.logging import structure

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.spans import Spans

    Loggers = Callable[..., tuple[logging.Logger, io.StringIO]]

RECORD = plan_record("p1", apply_id="f1", attempts=2)
TRACE_ID = f"{own_trace_id('p1'):032x}"


@pytest.fixture
def logger() -> Loggers:
    """Loggers whose lines a worker has put into shape, and what they have written."""

    def make(lines: LogFormat) -> tuple[logging.Logger, io.StringIO]:
        written = io.StringIO()
        logger = logging.Logger("workers.any", logging.DEBUG)  # noqa: LOG001 (one of the test's own)
        handler = logging.StreamHandler(written)
        handler.setFormatter(ColorFormatter("%(message)s, as it was", use_color=False))
        logger.addHandler(handler)
        structure(logger, lines, "%(levelname)s %(message)s", colorize=False)
        return logger, written

    return make


def objects(written: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in written.getvalue().splitlines()]


def test_a_line_of_text_ends_with_the_fields_of_its_step(logger: Loggers) -> None:
    text, written = logger(LogFormat.TEXT)
    with step_span(RECORD):
        text.info("a call to %s", "it")
    fields = f"plan=p1 executor=default apply_id=f1 attempt=3 trace_id={TRACE_ID}"
    assert written.getvalue() == f"INFO a call to it {fields}\n"


def test_what_is_not_known_is_not_there(logger: Loggers) -> None:
    text, written = logger(LogFormat.TEXT)
    text.info("before")
    with step_span(plan_record("p1")):
        text.info("within")
    text.info("after")
    assert written.getvalue().splitlines() == [
        "INFO before",
        f"INFO within plan=p1 executor=default attempt=1 trace_id={TRACE_ID}",
        "INFO after",
    ]


def test_values_with_spaces_are_quoted_in_text(logger: Loggers) -> None:
    text, written = logger(LogFormat.TEXT)
    with step_span(plan_record("p1", apply_id='f 1" plan=p2')):
        text.info("odd")
    assert ' apply_id="f 1\\" plan=p2" attempt=1 ' in written.getvalue()


EVIL = "no\x1b[2J\x9b31m\u202e\r\n2026-01-01 ERROR forged"
STEERING = {"\x1b", "\x9b", "\u202e", "\r"}


@pytest.mark.parametrize("lines", LogFormat)
def test_no_message_can_steer_a_terminal_or_forge_a_line(logger: Loggers, lines: LogFormat) -> None:
    shaped, written = logger(lines)
    with step_span(plan_record("p1", apply_id="f\x1b[2J")):
        shaped.error("it said %s", EVIL, exc_info=ValueError(EVIL))
    assert not set(written.getvalue()) & STEERING
    assert all(line.startswith(("ERROR ", "  ", "{")) for line in written.getvalue().splitlines())


def test_a_line_of_json_has_them_as_members(logger: Loggers) -> None:
    programs, written = logger(LogFormat.JSON)
    with step_span(RECORD):
        programs.warning("a call to %s", "it", extra={"duration_ms": 1.5})
    [found] = objects(written)
    age = datetime.now(UTC) - datetime.fromisoformat(found.pop("time"))
    assert abs(age.total_seconds()) < 60
    assert found == {
        "level": "WARNING",
        "logger": "workers.any",
        "message": "a call to it",
        "plan": "p1",
        "executor": "default",
        "apply_id": "f1",
        "attempt": 3,
        "duration_ms": 1.5,
        "trace_id": TRACE_ID,
    }


def test_what_a_line_says_itself_comes_first(logger: Loggers) -> None:
    programs, written = logger(LogFormat.JSON)
    with step_span(plan_record("p1")):
        programs.info("applied", extra={"apply_id": "f2"})
        programs.info("not applied", extra={"apply_id": None})
    assert [found.get("apply_id") for found in objects(written)] == ["f2", None]


def test_a_traceback_stays_within_its_line(logger: Loggers) -> None:
    programs, written = logger(LogFormat.JSON)
    programs.error("over\ntwo lines", exc_info=ZeroDivisionError("on\ntwo lines"))
    [found] = objects(written)
    assert found["message"] == "over\ntwo lines"
    assert found["exception"] == "ZeroDivisionError: on\ntwo lines"


@pytest.mark.parametrize("lines", LogFormat)
def test_what_libraries_attach_to_their_lines_is_left_out(logger: Loggers, lines: LogFormat) -> None:
    shaped, written = logger(lines)
    shaped.info("theirs", extra={"data": {"args": "planted-t0ken"}})
    assert "planted" not in written.getvalue()


def test_a_message_that_is_not_text_is_logged_as_text(logger: Loggers) -> None:
    programs, written = logger(LogFormat.JSON)
    programs.info({"level": "none of ours"})
    [found] = objects(written)
    assert (found["level"], found["message"]) == ("INFO", "{'level': 'none of ours'}")


def test_a_line_says_which_trace_it_is_from(logger: Loggers) -> None:
    programs, written = logger(LogFormat.JSON)
    with step_span(RECORD):
        programs.info("in the plan's own trace")
    programs.info("in none")
    assert [found.get("trace_id") for found in objects(written)] == [TRACE_ID, None]


def test_any_span_is_enough_for_that(logger: Loggers, spans: Spans) -> None:
    programs, written = logger(LogFormat.JSON)
    with spans.tracer.start_as_current_span("any") as span:
        programs.info("within")
    [found] = objects(written)
    assert found["trace_id"] == f"{span.get_span_context().trace_id:032x}"
