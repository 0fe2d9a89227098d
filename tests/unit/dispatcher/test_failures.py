"""A plan's failed attempts: the last ones are kept, each with a short sentence, and nothing spoils them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.plans import abort_plan

from dispatcher import ExecutorServerError, ExecutorTimeoutError
from dispatcher.ledger.failures import LONGEST_SENTENCE, MOST_KEPT, failed_attempts, with_failure
from dispatcher.ledger.record import Order, PlanRecord

ORDER = Order(plan=abort_plan(), timeout_ms=30_000)
RECORD = PlanRecord("p1", ORDER.plan, "default", ORDER.timeout_ms, 1_000, 1_000)


@given(st.lists(st.tuples(st.integers(0, 4_000_000_000_000), st.text(max_size=400)), max_size=50))
def test_the_last_attempts_are_kept_in_order_and_cut(failures: list[tuple[int, str]]) -> None:
    stored = ""
    for at_ms, sentence in failures:
        stored = with_failure(stored, at_ms, sentence)
    found = failed_attempts(stored)
    kept = failures[-MOST_KEPT:]
    assert [each.attempt for each in found] == list(range(1, len(failures) + 1))[-MOST_KEPT:]
    assert [each.at for each in found] == [datetime.fromtimestamp(ms / 1000, UTC) for ms, _ in kept]
    for each, (_, sentence) in zip(found, kept, strict=True):
        assert len(each.cause) <= LONGEST_SENTENCE
        assert sentence.startswith(each.cause.removesuffix("…")) or each.cause == sentence


@given(
    st.text() | st.sampled_from(["7", "[7]", "{}", '[["a",1,"b"]]', "[[1,1]]", '[[1e99,1,"x"]]', "[" * 9_999])
)
def test_a_history_that_cannot_be_read_is_empty_and_begins_again(stored: str) -> None:
    assert len(failed_attempts(stored)) in {0, 1}
    assert failed_attempts(with_failure(stored, 5, "down"))[-1].cause == "down"


@pytest.mark.parametrize("at_ms", [10**20, -(10**20)])
def test_a_time_that_no_clock_has_is_left_out(at_ms: int) -> None:
    assert failed_attempts(f'[[{at_ms},1,"down"]]') == ()


@pytest.mark.parametrize("row", ['["a",1,"b"]', '[1,"a","b"]', "[1,1,5]", '[1,"a",5]'])
def test_a_row_without_time_number_and_sentence_is_left_out(row: str) -> None:
    assert failed_attempts(f"[{row}]") == ()


def test_a_long_sentence_is_cut_to_what_is_kept_with_a_mark_at_its_end() -> None:
    longest = "x" * LONGEST_SENTENCE
    for sentence, kept in ((longest, longest), (longest + "y", longest[:-1] + "…")):
        assert failed_attempts(with_failure("", 5, sentence))[0].cause == kept


def test_attempts_are_stored_without_blanks() -> None:
    assert with_failure(with_failure("", 5, "down"), 6, "busy") == '[[5,1,"down"],[6,2,"busy"]]'


def test_a_plan_without_a_failed_attempt_stores_none() -> None:
    went_well = RECORD.applied("f1", 2_000).completed().observed()
    assert "failures" not in went_well.changes_since(RECORD)
    assert went_well.status().failures == ()


def test_a_plan_keeps_its_failures_when_a_later_attempt_succeeds() -> None:
    record = RECORD.failed_once_more(ExecutorServerError("busy", 503), 2_000)
    record = record.failed_once_more(ExecutorTimeoutError("slow"), 3_000).applied("f1", 4_000)
    assert [(each.attempt, each.cause) for each in record.status().failures] == [(1, "busy"), (2, "slow")]
    assert record.status().attempts == 0
    assert set(record.changes_since(RECORD)) >= {"failures"}
