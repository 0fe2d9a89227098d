"""A plan's record: what is stored is what is read, and when things happen follows from what is stored."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.plans import abort_plan, delay_plan, plan_record

from dispatcher import (
    ExecutorProtocolError,
    ExecutorServerError,
    FaultPlan,
    PlanCancelledError,
    PlanExpiredError,
    PlanState,
)
from dispatcher.errors import RecordUnreadableError
from dispatcher.ledger.failures import with_failure
from dispatcher.ledger.moments import LATEST_MS
from dispatcher.ledger.record import (
    MOMENTS,
    QUICK_APPLY_MS,
    SCHEMA_VERSION,
    STEP_FIELDS,
    Order,
    PlanRecord,
    budget_ms,
    read_record,
)
from dispatcher.models import MAX_TAKES_EFFECT_SEC, FailedAttempt, PlanStatus
from dispatcher.stored_errors import to_json

ORDER = Order(plan=abort_plan(duration_seconds=10), executor="west", timeout_ms=30_000)
FEWEST = {
    "v": SCHEMA_VERSION,
    "order": ORDER.to_json(),
    "submitted_ms": "1000",
    "due_ms": "2000",
    "state": "queued",
}
LONGEST_MS = MAX_TAKES_EFFECT_SEC * 1000
DOWN = ExecutorServerError("down", 503, "")
ODD = ExecutorProtocolError("what?", "f1")
FULL = FEWEST | {name: str(5_000 + number) for number, name in enumerate(MOMENTS)}
FULL |= {
    "state": "running",
    "attempts": "3",
    "retries": "2",
    "apply_id": "f1",
    "cause": "held",
    "failure": to_json(DOWN),
    "failures": with_failure("", 1_000, "down"),
    "cancelled": "enough",
    "error": to_json(ODD),
    "takes_effect_ms": "1500",
    "skew_ms": "-7000",
    "overlapped": "1",
    "doubt": "who knows",
    "seen": "{}",
    "traceparent": "00-x",
    "batch": "b1 b2 b3",
    "tags": "red blue",
}
RECORD = PlanRecord("p1", ORDER.plan, "west", 30_000, 1_000, 2_000)
"""With a fault of 10 s."""


def at(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


def read(fields: dict[str, str], in_the_way: str = "") -> PlanRecord:
    return PlanRecord.from_fields("p1", fields, in_the_way)


def test_a_new_plan_has_only_what_was_submitted() -> None:
    assert read(FEWEST) == read_record("p1", FEWEST) == RECORD


def test_an_order_is_stored_without_what_goes_without_saying() -> None:
    order = Order(plan=abort_plan(), timeout_ms=5)
    assert json.loads(order.to_json()) == {
        "plan": {
            "service": "PaymentService",
            "api": "/api/v1/payment/process",
            "fault_type": "abort",
            "percentage": 100,
            "duration_seconds": 1,
            "abort_http_status": 503,
        },
        "timeout_ms": 5,
    }


def test_each_stored_field_is_read() -> None:
    record = read(FULL, in_the_way="p0")
    moments = {name: getattr(record, name) for name in MOMENTS}
    assert moments == {name: 5_000 + number for number, name in enumerate(MOMENTS)}
    assert (record.id, record.plan, record.executor, record.timeout_ms) == ("p1", ORDER.plan, "west", 30_000)
    assert (record.state, record.attempts, record.retries) == (PlanState.RUNNING, 3, 2)
    assert (record.submitted_ms, record.due_ms, record.takes_effect_ms) == (1_000, 2_000, 1_500)
    assert (record.apply_id, record.cause, record.cancelled, record.doubt) == (
        "f1",
        "held",
        "enough",
        "who knows",
    )
    assert str(record.failure) == "down"
    assert isinstance(record.error, ExecutorProtocolError)
    assert record.skew_ms == -7_000
    assert (record.overlapped, record.seen, record.in_the_way) == (True, "{}", "p0")
    assert (record.traceparent, record.batch, record.tags) == ("00-x", "b1", ("red", "blue"))
    assert record.failures == FULL["failures"]


def test_a_cause_that_was_emptied_is_none() -> None:
    assert read(FEWEST | {"cause": ""}).cause is None


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "state": st.sampled_from(PlanState),
            "apply_id": st.text(min_size=1),
            "cause": st.text(min_size=1),
            "attempts": st.integers(1, 99),
            "takes_effect_ms": st.integers(1, LONGEST_MS),
            "skew_ms": st.integers(-LATEST_MS, LATEST_MS),
            "seen": st.text(min_size=1),
            **{name: st.integers(1, LATEST_MS) for name in MOMENTS if name in STEP_FIELDS},
        },
    )
)
def test_what_a_step_changed_is_what_is_read(changes: dict[str, Any]) -> None:
    changed = RECORD._replace(**changes)
    fields = changed.changes_since(RECORD)
    assert read(FEWEST | {name: str(value) for name, value in fields.items()}) == changed
    back = RECORD.changes_since(changed)
    assert set(back) == set(fields)
    absent = {name for name, value in back.items() if value == ""}
    assert absent >= fields.keys() & {*MOMENTS, "apply_id", "cause"}


def test_errors_are_stored_as_json_and_what_is_equal_is_not_stored() -> None:
    assert RECORD._replace(error=DOWN, tags=("x",)).changes_since(RECORD) == {"error": to_json(DOWN)}
    assert RECORD._replace(cause="a b").changes_since(RECORD._replace(cause=" ".join("ab"))) == {}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"v": "0"}, "plan p1 cannot be read: its schema version is 0, and 1 is known here"),
        ({"due_ms": "x"}, "plan p1 cannot be read: invalid literal for int() with base 10: 'x'"),
        ({"due_ms": "-1"}, "plan p1 cannot be read: due_ms is -1, which is not a time"),
        (
            {"over_ms": str(LATEST_MS + 1)},
            f"plan p1 cannot be read: over_ms is {LATEST_MS + 1}, which is not a time",
        ),
        (
            {"submitted_ms": str(LATEST_MS + 1)},
            f"plan p1 cannot be read: submitted_ms is {LATEST_MS + 1}, which is not a time",
        ),
        ({"takes_effect_ms": "-1"}, "plan p1 cannot be read: takes_effect_ms is -1, which is too long"),
        (
            {"takes_effect_ms": str(LONGEST_MS + 1)},
            f"plan p1 cannot be read: takes_effect_ms is {LONGEST_MS + 1}, which is too long",
        ),
        (
            {"state": "odd", "target": "west:s:a", "apply_id": "f1"},
            "plan p1 (target west:s:a, apply id f1) cannot be read: 'odd' is not a valid PlanState",
        ),
        (
            {"state": "\x1b", "target": "west:s:\x1b"},
            r"'plan p1 (target west:s:\x1b, apply id None) cannot be read: '\x1b' is not a valid PlanState'",
        ),
    ],
)
def test_what_cannot_be_read_is_named_with_its_reason(changes: dict[str, str], why: str) -> None:
    error = read_record("p1", FEWEST | changes)
    assert isinstance(error, RecordUnreadableError)
    assert error.message.replace('"', "'").replace("\\\\", "\\") == why
    assert error.plan_id == "p1"


def test_a_record_without_a_field_is_named_too() -> None:
    error = read_record("p1", {name: value for name, value in FEWEST.items() if name != "due_ms"})
    assert isinstance(error, RecordUnreadableError)
    assert error.message == "plan p1 cannot be read: KeyError 'due_ms'"


def test_the_first_and_the_last_time_are_times() -> None:
    fields = FEWEST | {"due_ms": "0", "over_ms": str(LATEST_MS), "applied_ms": "0"}
    fields |= {"takes_effect_ms": str(LONGEST_MS)}
    assert isinstance(read_record("p1", fields), PlanRecord)


def test_a_budget_has_the_faults_own_time_and_how_long_it_holds_requests() -> None:
    assert budget_ms(abort_plan(duration_seconds=10), 500) == 10_500
    plan = delay_plan(duration_seconds=10, start_delay_ms=700, delay_seconds=2.5)
    assert budget_ms(plan, 0) == 10_000 + 700 + 2_500


def test_a_plan_without_a_first_step_has_no_deadline_and_one_without_an_apply_no_end() -> None:
    assert (RECORD.deadline_ms, RECORD.fault_ends_ms, RECORD.in_force_ms) == (None, None, None)
    assert (RECORD.planned_end_ms, RECORD.surely_until_ms) == (None, None)
    assert RECORD.alive_ms(9_999_999) == 0


def test_times_follow_from_the_apply_and_the_time_to_take_effect() -> None:
    record = RECORD._replace(started_ms=100_000, applied_ms=101_000, takes_effect_ms=1_500, sent_ms=100_900)
    assert record.deadline_ms == 100_000 + 10_000 + 30_000 + 2 * 1_500
    assert record.sent_plan.duration_seconds == 12
    assert record.fault_ends_ms == 101_000 + 12_000 + 1_500
    assert record.in_force_ms == 102_500
    assert record.planned_end_ms == 112_500
    assert record.surely_until_ms == 100_900 + 1_500 + 10_000
    assert record._replace(sent_ms=None).surely_until_ms == 112_500
    assert record._replace(began_ms=103_000).in_force_ms == 103_000
    assert record._replace(began_ms=103_000).surely_until_ms == 113_000
    assert record._replace(applied_ms=None, doubtful_ms=90_000).fault_ends_ms == 90_000 + 13_500
    assert record.alive_ms(110_000) == 4_500
    assert record.alive_ms(120_000) == 0


def test_a_plan_is_sent_as_it_is_if_its_fault_takes_effect_at_once() -> None:
    assert RECORD.sent_plan is RECORD.plan


def test_a_removal_takes_its_time_from_when_it_was_seen() -> None:
    applied = RECORD._replace(apply_id="f1", takes_effect_ms=3_000, looked_ms=50_000)
    assert applied.gone_in_ms(51_000) == 3_000
    assert applied.observed().gone_in_ms(51_000) == 2_000
    assert applied.observed().gone_in_ms(60_000) == 0
    assert applied.observed()._replace(looked_ms=None).gone_in_ms(51_000) == 3_000
    assert RECORD._replace(takes_effect_ms=3_000).gone_in_ms(51_000) == 0
    assert RECORD.in_doubt(1)._replace(takes_effect_ms=3_000).gone_in_ms(51_000) == 3_000


@pytest.mark.parametrize(("took_ms", "kept"), [(QUICK_APPLY_MS, False), (QUICK_APPLY_MS + 1, True)])
def test_when_a_slow_apply_was_sent_is_kept(took_ms: int, *, kept: bool) -> None:
    record = RECORD._replace(sent_ms=1_000, attempts=2, failure=DOWN, cause="x").in_doubt(900, 950)
    applied = record.applied("f1", 1_000 + took_ms)
    assert applied == RECORD._replace(
        state=PlanState.RUNNING, apply_id="f1", applied_ms=1_000 + took_ms, sent_ms=1_000 if kept else None
    )
    assert RECORD.applied("f1", 5).sent_ms is None


def test_what_went_well_forgets_the_failures_before() -> None:
    troubled = RECORD._replace(attempts=2, failure=DOWN, cause="x")
    assert troubled.still_running() == RECORD
    assert troubled.completed() == RECORD._replace(state=PlanState.COMPLETED)
    assert troubled.observed() == RECORD._replace(state=PlanState.OBSERVED)
    assert troubled.looked_at(5, 6, 7) == RECORD._replace(began_ms=5, over_ms=6, looked_ms=7)
    known = RECORD._replace(began_ms=5, over_ms=6)
    assert known.looked_at(None, None, 7) == known._replace(looked_ms=7)
    assert known.looked_at(8, 9, 7) == RECORD._replace(began_ms=8, over_ms=9, looked_ms=7)
    assert RECORD.sampled("s") == RECORD._replace(seen="s")


def test_a_failed_call_is_counted_kept_and_becomes_the_cause() -> None:
    failed = RECORD._replace(cause="held", attempts=1).failed_once_more(DOWN, 4_000)
    failures = with_failure("", 4_000, "down")
    assert failed == RECORD._replace(attempts=2, failure=DOWN, failures=failures)
    assert failed.why == "down"
    assert failed.held_back("the breaker").why == "the breaker"
    assert RECORD.why is None


def test_the_first_apply_without_an_answer_stays() -> None:
    first = RECORD.in_doubt(1_000, 1_500)
    assert (first.doubtful_ms, first.not_after_ms, first.applying_ms) == (1_000, 1_500, 1_000)
    second = first.in_doubt(2_000)
    assert (second.doubtful_ms, second.not_after_ms, second.applying_ms) == (2_000, None, 1_000)
    assert second.doubtful
    assert second.applied_for_all_we_know
    assert RECORD._replace(apply_id="f1").applied_for_all_we_know
    assert not RECORD.applied_for_all_we_know


def test_a_plan_that_is_deferred_has_not_begun_and_waits_no_longer_than_before() -> None:
    begun = RECORD._replace(started_ms=5, attempts=1, failure=DOWN)
    assert begun.put_off("why", 9_000) == RECORD._replace(cause="why", expires_ms=9_000)
    assert begun._replace(expires_ms=8_000).put_off("why", 9_000).expires_ms == 8_000
    assert begun._replace(expires_ms=9_500).put_off("why", 9_000).expires_ms == 9_000


def test_when_the_stopping_began_and_its_attempts_are_counted_once() -> None:
    ending = RECORD._replace(attempts=2).ending(DOWN, 5_000)
    assert ending == RECORD._replace(error=DOWN, stopping_ms=5_000)
    assert ending._replace(attempts=3).ending(ODD, 6_000) == RECORD._replace(
        error=ODD, stopping_ms=5_000, attempts=3
    )


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (PlanCancelledError("enough"), PlanState.CANCELLED),
        (PlanExpiredError("late"), PlanState.EXPIRED),
        (DOWN, PlanState.FAILED),
    ],
    ids=["cancelled", "expired", "failed"],
)
def test_the_error_decides_how_a_plan_has_ended(error: Exception, state: PlanState) -> None:
    ended = RECORD._replace(failure=DOWN).ended(error)
    assert ended == RECORD._replace(state=state, cause=str(error))
    assert ended.ends
    assert RECORD._replace(cancelled="").ends
    assert RECORD._replace(error=DOWN).ends
    assert not RECORD.ends


def test_a_status_has_all_that_people_may_know() -> None:
    record = read(FULL)._replace(applied_ms=20_000, began_ms=None, error=None)
    assert record.status() == PlanStatus(
        id="p1",
        plan=ORDER.plan,
        executor="west",
        state=PlanState.RUNNING,
        apply_id="f1",
        attempts=3,
        cause="held",
        submitted_at=at(1_000),
        started_at=at(record.started_ms or 0),
        applied_at=at(20_000),
        in_force_at=at(21_500),
        ends_at=at(30_000),
        over_at=at(record.over_ms or 0),
        stopping_at=at(record.stopping_ms or 0),
        next_step_at=at(2_000),
        ended_at=at(record.ended_ms or 0),
        failures=(FailedAttempt(at=at(1_000), attempt=1, cause="down"),),
        batch="b1",
        tags=("red", "blue"),
    )
    ended = RECORD.ended(DOWN).status()
    assert (ended.next_step_at, ended.ends_at, ended.failures) == (None, None, ())


@given(seconds=st.integers(1, 100), takes_ms=st.integers(0, 10_000))
def test_a_fault_is_in_force_for_its_duration_before_the_executor_ends_it(
    seconds: int, takes_ms: int
) -> None:
    plan: FaultPlan = abort_plan(duration_seconds=seconds)
    record = plan_record("p1", plan=plan, applied_ms=1_000, takes_effect_ms=takes_ms)
    removed_ms = 1_000 + record.sent_plan.duration_seconds * 1000
    assert record.planned_end_ms is not None
    assert record.planned_end_ms <= removed_ms < record.planned_end_ms + 1_000
    assert record.sent_plan.duration_seconds == seconds + math.ceil(takes_ms / 1000)
