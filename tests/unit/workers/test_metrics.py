"""What is counted of one call, and which calls repeat others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.plans import abort_plan

from dispatcher import (
    CircuitOpenError,
    ExecutorClientError,
    ExecutorConnectionError,
    ExecutorProtocolError,
    ExecutorRejectedError,
    ExecutorServerError,
    ExecutorTimeoutError,
    FaultFailedError,
    FaultLostError,
    FaultUnobservedError,
    InvalidPlanError,
    LedgerRefusedError,
    LedgerUnavailableError,
    MetricsNotReadyError,
    PlanState,
    errors,
)
from dispatcher.ledger.record import PlanRecord
from dispatcher.telemetry.metrics import CallKind
from workers.engine.call_metrics import measured, repeated

if TYPE_CHECKING:
    from collections.abc import Callable

ANSWERS: dict[type[Exception] | None, str] = {
    None: "answered",
    FaultFailedError: "answered",
    FaultLostError: "answered",
    FaultUnobservedError: "answered",
    MetricsNotReadyError: "answered",
    ExecutorRejectedError: "rejected",
    ExecutorServerError: "server",
    ExecutorProtocolError: "protocol",
    ExecutorTimeoutError: "timeout",
}
NO_ANSWER: dict[type[Exception], str] = {
    ExecutorConnectionError: "connection",
    ExecutorClientError: "defect",
    ZeroDivisionError: "defect",
}
NOT_SENT = [CircuitOpenError, InvalidPlanError, LedgerRefusedError, LedgerUnavailableError]
OF_NO_DRIVER = {
    "CapabilityMissingError",
    "DispatchHaltedError",
    "DispatcherClosedError",
    "ExtraMissingError",
    "FaultInDoubtError",
    "InvalidSettingsError",
    "PartlySubmittedError",
    "PlanCancelledError",
    "PlanConflictError",
    "PlanExpiredError",
    "PlanUnknownError",
    "RecordUnreadableError",
    "ResultTimeoutError",
}


def test_every_error_has_its_place_here() -> None:
    placed = {each.__name__ for each in [*ANSWERS, *NO_ANSWER, *NOT_SENT] if each is not None}
    assert placed - {"ZeroDivisionError"} == set(errors.__all__) - OF_NO_DRIVER


@pytest.mark.parametrize("error", ANSWERS)
@pytest.mark.parametrize("kind", CallKind)
def test_what_was_answered_or_waited_for_has_a_latency(
    kind: CallKind, error: Callable[[], Exception] | None
) -> None:
    counts = measured(kind, error and error(), 0.5, retry=False)
    assert counts.pop(f"{kind}:{ANSWERS[error]}") == 1  # type: ignore[index]
    assert counts.pop("latency_us") == 500_000
    [bucket] = counts
    assert bucket.startswith("latency:")


@pytest.mark.parametrize("error", NO_ANSWER)
def test_what_came_to_no_answer_has_none(error: type[Exception]) -> None:
    assert measured(CallKind.APPLY, error(), 0.5, retry=False) == {f"apply:{NO_ANSWER[error]}": 1}


@pytest.mark.parametrize("error", NOT_SENT)
def test_what_was_not_sent_is_not_a_request(error: type[Exception]) -> None:
    assert measured(CallKind.APPLY, error(), 0.5, retry=True) == {}


def test_a_retry_is_counted_and_one_that_is_answered_twice() -> None:
    assert measured(CallKind.APPLY, ExecutorConnectionError(), 0.5, retry=True)["retries"] == 1
    failed = measured(CallKind.APPLY, ExecutorServerError(), 0.5, retry=True)
    assert (failed["retries"], failed.get("retries_succeeded")) == (1, None)
    answered = measured(CallKind.STATUS, FaultLostError(), 0.5, retry=True)
    assert (answered["retries"], answered["retries_succeeded"]) == (1, 1)


def test_a_step_repeats_the_call_that_failed_in_the_one_before() -> None:
    queued = PlanRecord("p1", abort_plan(), "default", timeout_ms=1, submitted_ms=0, due_ms=0)
    running, trouble = queued.applied("f1", 0), ExecutorServerError("down", 503)
    assert [repeated(each) for each in (queued, running, running.completed())] == [None] * 3
    assert repeated(queued.failed_once_more(trouble, 0)) is CallKind.APPLY
    assert repeated(running.failed_once_more(trouble, 0)) is CallKind.STATUS
    completed = running.completed().failed_once_more(trouble, 0)
    assert completed.state is PlanState.COMPLETED
    assert repeated(completed) is CallKind.METRICS


def test_a_first_stop_repeats_nothing_and_a_second_one_does() -> None:
    record = PlanRecord("p1", abort_plan(), "default", timeout_ms=1, submitted_ms=0, due_ms=0)
    failing = record.applied("f1", 0).failed_once_more(ExecutorServerError("down", 503), 0)
    ending = failing.ending(ExecutorRejectedError("no", 400), 0)
    assert repeated(ending) is None
    assert repeated(ending.failed_once_more(ExecutorTimeoutError("slow"), 0)) is CallKind.STOP
