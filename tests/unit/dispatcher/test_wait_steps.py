"""Each wait as a sequence of requests to Redis: what it asks for, and what it ends with."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from support.plans import abort_plan
from support.steps import finished

from dispatcher import PlanState, Settings
from dispatcher.errors import RecordUnreadableError
from dispatcher.ledger import waits
from dispatcher.ledger.exchanges import Send, drive, send_over
from dispatcher.ledger.leases import Lease, Leases, Named
from dispatcher.ledger.ledger import Ledger, Submission
from dispatcher.ledger.record import Order
from dispatcher.ledger.waits import (
    PAGE,
    Block,
    completions,
    ended_among,
    ends_of,
    first_of,
    pages,
    result_of,
    results_or_states,
    values_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis

    from dispatcher.ledger.waits import Request, Wait

T = TypeVar("T")
PREFIX = "{dispatcher}:"


class Answers:
    """Carries the requests of a wait out on a fake Redis, whose blocking commands end after 2 s."""

    def __init__(self, client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
        self._client = client
        self._now_s = 1_000.0
        self.blocks: list[list[Any]] = []
        self.sent: list[list[Any]] = []
        self.meanwhile: Callable[[], object] = lambda: None
        """What happens in the first block."""

        monkeypatch.setattr(time, "monotonic", lambda: self._now_s)

    def end_of(self, wait: Wait[T]) -> T:
        return drive(wait, self._answer)

    def _answer(self, request: Request) -> Any:
        if isinstance(request, Send):
            self.sent += [list(command) for command in request.commands]
            return send_over(self._client, request)
        self.blocks.append(list(request.words(2.0)))
        self._now_s += 2.0
        self.meanwhile()
        self.meanwhile = lambda: None
        if self.blocks[-1][0] == "XREAD":
            words = [each for each in self.blocks[-1] if each not in {"BLOCK", 2000}]
            return self._client.execute_command(*words)  # type: ignore[no-untyped-call]
        return None


@pytest.fixture
def ledger(fake_redis: redis.Redis) -> Ledger:
    return Ledger(fake_redis, Settings())


@pytest.fixture
def answers(fake_redis: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> Answers:
    return Answers(fake_redis, monkeypatch)


def submit(ledger: Ledger, *plan_ids: str, batch: str = "") -> None:
    """New plans, each with a target of its own."""
    orders = {each: Order(plan=abort_plan(service=each), timeout_ms=30_000) for each in plan_ids}
    submissions = [Submission(each, order, batch=batch) for each, order in orders.items()]
    assert ledger.submit(submissions) == [True] * len(plan_ids)


def end(client: redis.Redis, plan_id: str) -> None:
    leases = Leases(client, Settings())
    [lease] = leases.fetch([Named(plan_id, 0)], 0).named
    assert isinstance(lease, Lease)
    finished(leases, lease)


def test_a_result_is_waited_for_until_its_plan_ends(
    ledger: Ledger, answers: Answers, fake_redis: redis.Redis
) -> None:
    submit(ledger, "p1")
    answers.meanwhile = lambda: end(fake_redis, "p1")
    assert answers.end_of(result_of(ledger, "p1", "result-p1", None)) == (PlanState.OBSERVED, "the result")
    assert answers.blocks == [["BLMOVE", f"{PREFIX}ended:p1", f"{PREFIX}ended:p1", "LEFT", "LEFT", 2.0]]


def test_the_state_is_what_a_wait_without_an_end_gives(ledger: Ledger, answers: Answers) -> None:
    submit(ledger, "p1")
    assert answers.end_of(result_of(ledger, "p1", "result-p1", 4.0)) == (PlanState.QUEUED, None)
    assert len(answers.blocks) == 2
    assert answers.end_of(result_of(ledger, "p1", "result-p1", 0.0)) == (PlanState.QUEUED, None)
    assert len(answers.blocks) == 2


def test_a_plan_that_is_unknown_may_have_left_its_result(
    ledger: Ledger, answers: Answers, fake_redis: redis.Redis
) -> None:
    assert answers.end_of(result_of(ledger, "p1", "result-p1", None)) == (None, None)
    fake_redis.set("result-p1", "left")
    assert answers.end_of(result_of(ledger, "p1", "result-p1", None)) == (None, "left")


def test_a_state_that_no_version_knows_is_named(
    ledger: Ledger, answers: Answers, fake_redis: redis.Redis
) -> None:
    fake_redis.hset(ledger.plan_key("p1"), "state", "odd")
    with pytest.raises(RecordUnreadableError) as caught:
        answers.end_of(result_of(ledger, "p1", "r", None))
    assert caught.value.message == "plan p1 cannot be read: this version knows no state 'odd'"
    assert caught.value.plan_id == "p1"


def test_the_completions_of_a_batch_come_in_pages_with_a_cursor(
    ledger: Ledger, answers: Answers, fake_redis: redis.Redis
) -> None:
    submit(ledger, "p1", "p2", "p3", batch="b")
    end(fake_redis, "p2")
    cursor, ids = answers.end_of(completions(ledger, "b", "0", ["p1", "p2", "p3"], 60.0))
    assert ids == ["p2"]
    answers.meanwhile = lambda: end(fake_redis, "p1")
    later, ids = answers.end_of(completions(ledger, "b", cursor, ["p1", "p3"], 60.0))
    assert ids == ["p1"]
    assert answers.blocks[1:] == [
        ["XREAD", "COUNT", PAGE, "BLOCK", 2000, "STREAMS", f"{PREFIX}completions:b", cursor]
    ]
    assert answers.end_of(completions(ledger, "b", later, ["p3"], 3.0)) == (later, [])
    assert len(answers.blocks) == 4


def test_lost_plans_of_a_batch_have_ended_too(
    ledger: Ledger, answers: Answers, fake_redis: redis.Redis
) -> None:
    submit(ledger, "p1", "p2", batch="b")
    fake_redis.delete(ledger.plan_key("p2"))
    assert answers.end_of(completions(ledger, "b", "0", ["p1", "p2"], 60.0)) == ("0", ["p2"])


def test_plans_of_a_batch_that_have_ended_without_a_new_entry_are_found(
    ledger: Ledger, answers: Answers, fake_redis: redis.Redis
) -> None:
    submit(ledger, "p1", "p2", "p3", batch="b")
    end(fake_redis, "p2")
    fake_redis.zrem(f"{PREFIX}due", "p3")  # whose record says that it goes on
    fake_redis.delete(ledger.completions_key("b"))
    wait = completions(ledger, "b", "9999999999999-0", ["p1", "p2", "p3"], 60.0)
    assert answers.end_of(wait) == ("9999999999999-0", ["p2"])


def test_entries_without_an_id_move_the_cursor_only(
    ledger: Ledger, answers: Answers, fake_redis: redis.Redis
) -> None:
    submit(ledger, "p1", batch="b")
    fake_redis.xadd(ledger.completions_key("b"), {"odd": "1"}, id="5-0")
    assert answers.end_of(completions(ledger, "b", "0", ["p1"], 4.0)) == ("5-0", [])
    assert [words[-1] for words in answers.blocks] == ["0", "5-0"]


def test_the_first_element_of_a_list_is_waited_for(
    ledger: Ledger, answers: Answers, fake_redis: redis.Redis
) -> None:
    assert answers.end_of(first_of("list", 4.0)) is None
    assert len(answers.blocks) == 2
    answers.meanwhile = lambda: fake_redis.rpush("list", "first", "second")
    assert answers.end_of(first_of("list", 4.0)) == "first"
    assert answers.blocks[-1] == ["BLMOVE", "list", "list", "LEFT", "LEFT", 2.0]
    assert answers.end_of(first_of("list", 0.0)) == "first"
    assert len(answers.blocks) == 3


def test_values_are_read_some_hundred_at_a_time(answers: Answers, fake_redis: redis.Redis) -> None:
    keys = [f"k{number}" for number in range(PAGE + 2)]
    fake_redis.set(keys[0], "first")
    fake_redis.set(keys[-1], "last")
    values = answers.end_of(values_of(keys))
    assert (values[0], values[-1], values[1:-1]) == ("first", "last", [None] * PAGE)
    assert [len(command) for command in answers.sent] == [PAGE + 1, 3]
    assert answers.end_of(values_of([])) == []


def test_of_many_plans_those_that_ended_have_results_and_those_that_are_lost_none(
    ledger: Ledger, answers: Answers, fake_redis: redis.Redis
) -> None:
    submit(ledger, "p1", "p2")
    end(fake_redis, "p1")
    keys = {each: f"result-{each}" for each in ("p1", "p2", "p3", "p4")}
    assert answers.end_of(ended_among(ledger, keys)) == {"p1": "the result", "p3": None, "p4": None}
    answers.sent.clear()
    assert answers.end_of(ended_among(ledger, {"p2": "result-p2"})) == {}
    assert [command[0] for command in answers.sent] == ["MGET", "EXISTS", "EXISTS"]  # not each by itself


def test_what_is_stored_of_a_plan_in_flight_does_not_end_it(
    ledger: Ledger, answers: Answers, fake_redis: redis.Redis
) -> None:
    submit(ledger, "p1", "p2")
    end(fake_redis, "p2")
    fake_redis.set("result-p1", "a retry")
    fake_redis.set("result-p3", "left")
    keys = {each: f"result-{each}" for each in ("p1", "p2", "p3")}
    ended = {"p2": "the result", "p3": "left"}
    assert answers.end_of(ended_among(ledger, keys)) == ended
    assert answers.end_of(results_or_states(ledger, keys)) == {"p1": PlanState.QUEUED, **ended}


def test_a_plan_whose_result_was_forgotten_has_ended_all_the_same(
    ledger: Ledger, answers: Answers, fake_redis: redis.Redis
) -> None:
    submit(ledger, "p1", "p2", "p3")
    end(fake_redis, "p1")
    end(fake_redis, "p2")
    fake_redis.delete("result-p1")
    keys = {each: f"result-{each}" for each in ("p1", "p2", "p3")}
    assert answers.end_of(ended_among(ledger, keys)) == {"p1": PlanState.OBSERVED, "p2": "the result"}
    assert answers.end_of(ends_of(ledger, {"p1": "result-p1", "p4": "result-p4"})) == {
        "p1": PlanState.OBSERVED,
        "p4": None,
    }


def test_the_ends_of_more_plans_than_one_command_is_about_are_read(
    ledger: Ledger, answers: Answers, fake_redis: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waits, "PAGE", 2)
    names = ("p1", "p2", "p3")
    submit(ledger, *names)
    for each in names:
        end(fake_redis, each)
    keys = {each: f"result-{each}" for each in names}
    assert answers.end_of(ends_of(ledger, keys)) == dict.fromkeys(names, "the result")


def test_of_more_plans_than_one_command_is_about_all_that_are_lost_are_named(
    answers: Answers, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waits, "PAGE", 2)
    submit(ledger, "p1", "p4")
    lost = ["p0", "p2", "p3", "p5"]
    keys = {f"p{number}": f"result-p{number}" for number in range(6)}
    assert answers.end_of(ended_among(ledger, keys)) == dict.fromkeys(lost)


def test_results_or_states_are_read_in_one_round_trip(
    ledger: Ledger, answers: Answers, fake_redis: redis.Redis
) -> None:
    submit(ledger, "p1", "p2", "p5")
    end(fake_redis, "p1")
    end(fake_redis, "p5")
    fake_redis.delete("result-p5")
    fake_redis.set(ledger.plan_key("p4"), "no hash")
    fake_redis.hset(ledger.plan_key("p6"), "state", "odd")
    keys = {f"p{number}": f"result-p{number}" for number in range(1, 7)}
    found = answers.end_of(results_or_states(ledger, keys))
    assert (found["p1"], found["p2"], found["p3"], found["p5"]) == (
        "the result",
        PlanState.QUEUED,
        None,
        PlanState.OBSERVED,
    )
    wrong, odd = found["p4"], found["p6"]
    assert isinstance(wrong, RecordUnreadableError)
    assert wrong.message.startswith("plan p4 cannot be read: WRONGTYPE")
    assert isinstance(odd, RecordUnreadableError)
    assert (wrong.plan_id, odd.plan_id) == ("p4", "p6")


def test_pages_are_the_items_in_order() -> None:
    items = [str(number) for number in range(2 * PAGE + 1)]
    assert [list(page) for page in pages(items)] == [items[:PAGE], items[PAGE : 2 * PAGE], items[2 * PAGE :]]
    assert list(pages([])) == []


def test_a_block_is_asked_with_the_seconds_that_are_left() -> None:
    assert Block(lambda seconds: ["X", seconds]).words(0.5) == ["X", 0.5]
