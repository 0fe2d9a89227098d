"""The history: which plans it has, in which order, by which filters, page by page."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr
from support.plans import abort_plan
from support.steps import claim, finished, submit_in_turn

from dispatcher import (
    ExecutorConnectionError,
    ExecutorRejectedError,
    InvalidSettingsError,
    PlanExpiredError,
    PlanState,
    Settings,
)
from dispatcher.history import Filters, HistoryPage, all_pages, page_of
from dispatcher.ledger import index
from dispatcher.ledger.exchanges import drive
from dispatcher.ledger.index import Found, Place, Wanted, found, members
from dispatcher.ledger.leases import Leases
from dispatcher.ledger.ledger import Ledger, Submission
from dispatcher.ledger.record import Order
from dispatcher.tasks.app import make_celery
from dispatcher.tasks.results import ResultCodec

if TYPE_CHECKING:
    import redis

PREFIX = "{dispatcher}:"
RESULTS = ResultCodec(make_celery(Settings(redis_url=SecretStr("redis://127.0.0.1:1/0"))))


class Plans:
    """Plans in a ledger, and their ends."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client
        self.ledger = Ledger(client, Settings())
        self.leases = Leases(client, Settings())

    def submit(self, plan_id: str, tags: tuple[str, ...] = (), batch: str = "", **changes: Any) -> None:
        executor = changes.pop("executor", "default")
        order = Order(plan=abort_plan(**changes), timeout_ms=30_000, executor=executor)
        assert submit_in_turn(self.ledger, Submission(plan_id, order, batch=batch, tags=tags)) is True

    def end(self, plan_id: str, error: Exception | None = None) -> None:
        lease = claim(self.leases, plan_id, 0)
        assert lease is not None
        record = lease.record.observed() if error is None else lease.record.ended(error)
        stored = "{}" if error is None else RESULTS.encode(plan_id, error)
        finished(self.leases, lease, record)
        self.client.set(RESULTS.key(plan_id), stored)

    def submitted_at(self, plan_id: str, moment: datetime) -> None:
        """Have it submitted at that moment."""
        self.client.zadd(f"{PREFIX}history", {plan_id: round(moment.timestamp() * 1_000_000)})

    def page(self, *, cursor: str | None = None, limit: int = 100, **filters: Any) -> HistoryPage:
        reading = page_of(self.ledger, RESULTS, cast("Filters", filters), cursor, limit)
        return self.ledger.carry_out(reading)

    def ids(self, **filters: Any) -> list[str]:
        return [plan.id for plan in self.page(**filters).plans]


@pytest.fixture
def plans(redis_client: redis.Redis) -> Plans:
    return Plans(redis_client)


@pytest.fixture
def fake_plans(fake_redis: redis.Redis) -> Plans:
    return Plans(fake_redis)


def test_the_history_has_plans_in_every_state_the_newest_first(plans: Plans) -> None:
    for plan_id in ("first", "second", "third"):
        plans.submit(plan_id)
    plans.end("first")
    assert plans.ids() == ["third", "second", "first"]
    assert [plan.state for plan in plans.page().plans] == ["queued", "queued", "observed"]


def test_each_filter_lets_its_plans_through_and_all_of_them_together_fewer(plans: Plans) -> None:
    plans.submit("seen", ("monday",), api="/a")
    plans.submit("refused", ("monday", "night"), service="Other", api="/b")
    plans.submit("expired", executor="second", api="/c")
    plans.submit("queued", ("night",), "b1", api="/d")
    plans.end("seen")
    plans.end("refused", ExecutorRejectedError("no", 400, "bad"))
    plans.end("expired", PlanExpiredError("late"))
    cases: list[tuple[dict[str, Any], list[str]]] = [
        ({"state": "observed"}, ["seen"]),
        ({"state": ["observed", PlanState.QUEUED]}, ["queued", "seen"]),
        ({"target": "Other"}, ["refused"]),
        ({"target": "PaymentService /d"}, ["queued"]),
        ({"target": "PaymentService /b"}, []),
        ({"executor": "second"}, ["expired"]),
        ({"tag": "night"}, ["queued", "refused"]),
        ({"tag": "nigh"}, []),
        ({"batch": "b1"}, ["queued"]),
        ({"batch": "b2"}, []),
        ({"error": "ExecutorRejectedError"}, ["refused"]),
        ({"error": PlanExpiredError}, ["expired"]),
        ({"error": "ExecutorClientError"}, ["expired", "refused"]),
        ({"error": ExecutorConnectionError}, []),
        ({"error": "ExecutorClientError", "state": "expired"}, ["expired"]),
        ({"error": "ExecutorClientError", "state": "observed"}, []),
        ({"tag": "monday", "state": "observed"}, ["seen"]),
        ({"tag": "night", "batch": "b1", "target": "PaymentService"}, ["queued"]),
    ]
    for filters, ids in cases:
        assert plans.ids(**filters) == ids, filters


def test_a_time_has_a_beginning_that_belongs_to_it_and_an_end_that_does_not(plans: Plans) -> None:
    noon = datetime(2030, 1, 1, 12, tzinfo=UTC)
    for hour in range(4):
        plans.submit(f"p{hour}", batch="b1")
        plans.submitted_at(f"p{hour}", noon + timedelta(hours=hour))
    until = noon + timedelta(hours=2)
    for batch in (None, "b1"):
        assert plans.ids(since=noon + timedelta(hours=1), batch=batch) == ["p3", "p2", "p1"]
        assert plans.ids(until=until, batch=batch) == ["p1", "p0"]
        assert plans.ids(since=noon + timedelta(microseconds=1), until=until, batch=batch) == ["p1"]


@pytest.mark.parametrize(
    ("filters", "name"),
    [
        ({"state": "runing"}, "state"),
        ({"state": []}, "state"),
        ({"target": "a b c"}, "target"),
        ({"target": ""}, "target"),
        ({"tag": "a b"}, "tag"),
        ({"batch": ""}, "batch"),
        ({"since": datetime(2030, 1, 1)}, "since"),  # noqa: DTZ001 (what is refused)
        ({"until": "yesterday"}, "until"),
        ({"error": "ExecutorRejected"}, "error"),
        ({"error": ValueError}, "error"),
        ({"cursor": "nonsense"}, "cursor"),
        ({"limit": 0}, "limit"),
        ({"colour": "red"}, "colour"),
    ],
    ids=str,
)
def test_a_wrong_filter_is_named(fake_plans: Plans, filters: dict[str, Any], name: str) -> None:
    with pytest.raises(InvalidSettingsError) as caught:
        fake_plans.page(**filters)
    assert [field for field, _ in caught.value.problems] == [name]


def test_a_misspelled_name_is_answered_with_the_nearest(fake_plans: Plans) -> None:
    with pytest.raises(InvalidSettingsError, match="did you mean running"):
        fake_plans.page(state="runing")
    with pytest.raises(InvalidSettingsError, match="did you mean ExecutorRejectedError"):
        fake_plans.page(error="ExecutorRejectError")


def test_plans_whose_records_have_expired_are_left_out(plans: Plans) -> None:
    for plan_id in ("first", "second"):
        plans.submit(plan_id)
    plans.client.delete(f"{PREFIX}plan:first")
    assert plans.ids() == plans.ids(state="queued") == ["second"]


def test_a_record_that_cannot_be_read_is_named_and_keeps_no_other_from_being_read(plans: Plans) -> None:
    for plan_id in ("odd", "old", "fine"):
        plans.submit(plan_id)
    plans.client.delete(f"{PREFIX}plan:odd")
    plans.client.set(f"{PREFIX}plan:odd", "no hash")
    plans.client.hset(f"{PREFIX}plan:old", "v", "0")
    for state in (None, "queued"):
        page = plans.page(state=state)
        assert [plan.id for plan in page.plans] == ["fine"]
        assert {error.plan_id for error in page.unreadable} == {"odd", "old"}


def test_plans_that_are_submitted_between_two_pages_move_none(plans: Plans) -> None:
    for number in range(4):
        plans.submit(f"p{number}")
    first = plans.page(limit=2)
    plans.submit("p4")
    second = plans.page(limit=2, cursor=first.cursor)
    assert [[plan.id for plan in page.plans] for page in (first, second)] == [["p3", "p2"], ["p1", "p0"]]
    assert plans.page(limit=2, cursor=second.cursor).cursor is None


@given(
    moments=st.lists(st.integers(1, 4), max_size=12),
    limit=st.integers(1, 5),
    scanned=st.integers(1, 4),
    tag=st.sampled_from([None, "odd"]),
    batch=st.sampled_from([None, "b1"]),
)
@settings(max_examples=60)
def test_pages_of_any_size_together_are_the_whole_history_in_order(
    moments: list[int], limit: int, scanned: int, tag: str | None, batch: str | None
) -> None:
    fields = {
        f"p{number}": PLAN | {"tags": "odd" if number % 2 else "even"} for number in range(len(moments))
    }
    scores = {f"p{number}": us for number, us in enumerate(moments)}
    store = Store(scores, fields)
    wanted = Wanted(tag=tag, batch=batch)
    pages: list[Found] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index, "SCANNED", scanned)
        while not pages or pages[-1].after is not None:
            after = pages[-1].after if pages else None
            reading = found(LEDGER, wanted, RESULTS.key, after, limit)
            pages.append(drive(reading, lambda send: store.execute(send.commands)))
    chosen = [each for each in scores if tag is None or fields[each]["tags"] == tag]
    expected = sorted(chosen, key=lambda each: (scores[each], each), reverse=True)
    assert [record.id for page in pages for record in page.records] == expected
    assert all(len(page.records) == limit for page in pages[:-1])


ORDER = Order(plan=abort_plan(), timeout_ms=1).to_json()
LEDGER = Ledger.__new__(Ledger)
LEDGER.prefix = PREFIX
LEDGER.history_key = f"{PREFIX}history"


class Store:
    """What Redis answers, from two dictionaries."""

    def __init__(self, scores: dict[str, int], fields: dict[str, dict[str, str]]) -> None:
        self._scores = scores
        self._fields = fields
        self.asked: list[list[Any]] = []

    def execute(self, commands: Any) -> list[Any]:
        self.asked += map(list, commands)
        return [getattr(self, command[0].lower())(*command[1:]) for command in commands]

    def lrange(self, _: str, __: int, ___: int) -> list[str]:
        return list(self._scores)

    def zscore(self, _: str, plan_id: str) -> str:
        return str(self._scores[plan_id])

    def zrevrangebyscore(self, _: str, newest: Any, oldest: Any, *options: Any) -> list[str]:
        offset, count = options[-2:]
        top = int(newest[1:]) - 1 if str(newest).startswith("(") else float(newest)
        within = [(us, name) for name, us in self._scores.items() if float(oldest) <= us <= top]
        pairs = sorted(within, reverse=True)
        return [each for us, name in pairs[offset : offset + count] for each in (name, str(us))]

    def eval(self, _: str, __: int, ___: str, *plan_ids: str) -> list[list[str]]:
        names = ("state", "target", "tags")
        return [[self._fields[each][name] for name in names] for each in plan_ids]

    def hgetall(self, key: str) -> dict[str, str]:
        return self._fields[key.removeprefix(f"{PREFIX}plan:")]

    def mget(self, *keys: str) -> list[str]:
        return [f"stored under {key}" for key in keys]


PLAN = {"v": "1", "order": ORDER, "target": "default:S:/a", "state": "queued", "tags": "even"}
PLAN |= {"submitted_ms": "1", "due_ms": "1"}
UNREADABLE = PLAN | {"v": "0"}


def ten(**changes: dict[str, str]) -> Store:
    """Plans p0 to p9, each submitted one microsecond after the other, some of them changed."""
    names = [f"p{number}" for number in range(10)]
    return Store({each: us for us, each in enumerate(names)}, dict.fromkeys(names, PLAN) | changes)


def read(store: Store, wanted: Wanted, limit: int, after: Place | None = None) -> tuple[list[str], Found]:
    """The ids of a page, and the page."""
    reading = found(LEDGER, wanted, RESULTS.key, after, limit)
    page = drive(reading, lambda send: store.execute(send.commands))
    return [record.id for record in page.records], page


def scans(store: Store) -> list[list[Any]]:
    """How the index was read: the newest, the oldest, and how many."""
    return [
        [newest, oldest, count]
        for name, _, newest, oldest, _, _, _, count in (each for each in store.asked if len(each) == 8)
        if name == "ZREVRANGEBYSCORE"
    ]


@pytest.mark.parametrize(
    ("wanted", "after", "ids", "scan"),
    [
        (Wanted(), None, ["p9", "p8"], ["+inf", "-inf", 3]),
        (Wanted(since_us=3, until_us=7), None, ["p6", "p5"], ["(7", 3, 3]),
        (Wanted(until_us=7), Place(5, "p5"), ["p4", "p3"], [5, "-inf", 3]),
        (Wanted(), Place(1, "p1"), ["p0"], [1, "-inf", 3]),
    ],
    ids=["the newest", "of a time", "behind a place", "the last one"],
)
def test_a_page_of_plans_of_any_kind_is_read_with_two_commands(
    wanted: Wanted, after: Place | None, ids: list[str], scan: list[Any]
) -> None:
    store = ten()
    assert read(store, wanted, 2, after)[0] == ids
    assert scans(store) == [scan]
    assert [command[0] for command in store.asked] == ["ZREVRANGEBYSCORE", *["HGETALL"] * len(ids)]


def test_a_page_is_filled_up_with_as_many_plans_as_could_not_be_read() -> None:
    store = ten(p9=UNREADABLE, p8={})
    ids, page = read(store, Wanted(), 3)
    assert ids == ["p7", "p6", "p5"]
    assert [error.plan_id for error in page.unreadable] == ["p9"]
    assert page.after == Place(5, "p5")
    assert scans(store) == [["+inf", "-inf", 4], [7, "-inf", 3]]


def test_plans_of_one_kind_are_looked_for_many_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "SCANNED", 3)
    odd = PLAN | {"tags": "odd"}
    store = ten(p9=odd | {"v": "0"}, p8=odd, p6=odd, p5=odd, p4=odd)
    ids, page = read(store, Wanted(tag="odd"), 3)
    assert (ids, page.after) == (["p8", "p6", "p5"], Place(5, "p5"))
    assert [error.plan_id for error in page.unreadable] == ["p9"]
    assert scans(store) == [["+inf", "-inf", 4], [7, "-inf", 4]]
    ids, page = read(store, Wanted(tag="odd"), 1, page.after)
    assert (ids, page.after) == (["p4"], Place(2, "p2"))
    ids, page = read(store, Wanted(tag="even"), 2, page.after)
    assert (ids, page.after) == (["p1", "p0"], None)


def test_how_a_plan_ended_is_asked_with_its_id_and_what_is_stored_of_it() -> None:
    stored = f"stored under {RESULTS.key('p8')}"
    wanted = Wanted(ended_with=lambda plan_id, result: (plan_id, result) == ("p8", stored))
    assert read(ten(), wanted, 3)[0] == ["p8"]


def test_the_iterator_reads_page_after_page_and_stops_at_its_limit(fake_plans: Plans) -> None:
    for number in range(7):
        fake_plans.submit(f"p{number}")
    asked: list[Any] = []

    def read(**options: Any) -> HistoryPage:
        asked.append(options)
        return fake_plans.page(**options | {"limit": min(3, options["limit"])})

    newest_first = [f"p{number}" for number in reversed(range(7))]
    assert [plan.id for plan in all_pages(read, None, {})] == newest_first
    assert len(asked) == 3
    assert [plan.id for plan in all_pages(read, 2, {})] == ["p6", "p5"]
    with pytest.raises(InvalidSettingsError, match="limit"):
        all_pages(read, 0, {})


def test_a_batch_has_its_plans_in_the_order_of_submission_each_once(plans: Plans) -> None:
    order = Order(plan=abort_plan(), timeout_ms=30_000)
    page = [Submission(f"p{number}", order, batch="b1") for number in (10, 9, 2)]
    plans.ledger.submit(page[:2])
    plans.ledger.submit(page)  # the answer to the first call was lost
    assert plans.ledger.carry_out(members(plans.ledger, "b1")) == ["p10", "p9", "p2"]
    assert plans.ledger.carry_out(members(plans.ledger, "b2")) == []


def test_an_ended_plan_that_is_submitted_again_completes_in_its_new_batch_at_once(plans: Plans) -> None:
    plans.submit("p1", batch="b1")
    plans.end("p1")
    order = Order(plan=abort_plan(), timeout_ms=30_000)
    for _ in range(2):  # the answer to the first call was lost
        assert plans.ledger.submit([Submission("p1", order, batch="b2")]) == [False]
    for batch in ("b1", "b2"):
        entries: Any = plans.client.xrange(f"{PREFIX}completions:{batch}")
        assert [fields for _, fields in entries] == [{"id": "p1"}]
        assert plans.client.lrange(f"{PREFIX}batch:{batch}", 0, -1) == ["p1"]
        assert plans.ids(batch=batch) == ["p1"]
    endings = plans.client.lrange(f"{PREFIX}endings", 0, -1)
    assert [str(ending).split()[1:] for ending in endings] == [["p1", "b1"], ["p1", "b2"]]


def test_a_refused_plan_is_neither_in_the_history_nor_in_its_batch(plans: Plans) -> None:
    plans.ledger.halt("not today")
    order = Order(plan=abort_plan(), timeout_ms=30_000)
    plans.ledger.submit([Submission("p1", order, batch="b1")])
    assert plans.ids() == []
    assert plans.ledger.carry_out(members(plans.ledger, "b1")) == []


def test_a_plan_leaves_the_history_once_its_record_has_expired_and_its_batch_with_the_last(
    plans: Plans,
) -> None:
    plans.submit("p1", batch="b1")
    plans.submit("p2")
    plans.end("p1")
    [ending] = plans.client.lrange(f"{PREFIX}endings", 0, -1)
    seconds, milliseconds = plans.client.time()
    expires_ms = int(str(ending).split()[0])
    kept_ms = expires_ms - seconds * 1000 - milliseconds // 1000
    assert kept_ms == pytest.approx(Settings().result_expires_sec * 1000, abs=60_000)
    plans.client.delete(f"{PREFIX}plan:p1")
    plans.leases.fetch([], 0)
    assert plans.client.zcard(f"{PREFIX}history") == 2  # its time has not come
    plans.client.lset(f"{PREFIX}endings", 0, "0 p1 b1")
    plans.leases.fetch([], 0)
    assert plans.client.zrange(f"{PREFIX}history", 0, -1) == ["p2"]
    assert not plans.client.exists(f"{PREFIX}endings", f"{PREFIX}batch:b1", f"{PREFIX}gone")


def test_so_many_plans_leave_the_history_at_a_time_that_workers_are_not_held_up(fake_plans: Plans) -> None:
    client = fake_plans.client
    for number in range(250):
        client.zadd(f"{PREFIX}history", {f"p{number}": number})
        client.rpush(f"{PREFIX}endings", f"0 p{number}")
    left = []
    for _ in range(3):
        fake_plans.leases.fetch([], 0)
        left.append(client.zcard(f"{PREFIX}history"))
    assert left == [150, 50, 0]


def test_a_plan_whose_record_was_lost_in_flight_leaves_the_history(plans: Plans) -> None:
    plans.submit("p1")
    plans.client.delete(f"{PREFIX}plan:p1")
    plans.client.zadd(f"{PREFIX}due", {"p1": 0})
    plans.leases.fetch([], 10)
    assert not plans.client.exists(f"{PREFIX}history")


def test_an_unreadable_ending_holds_up_no_other(plans: Plans) -> None:
    plans.submit("p1")
    plans.end("p1")
    plans.client.delete(f"{PREFIX}plan:p1", f"{PREFIX}endings")
    plans.client.rpush(f"{PREFIX}endings", "nonsense", "0 p1")
    plans.leases.fetch([], 0)
    assert not plans.client.exists(f"{PREFIX}endings", f"{PREFIX}history")


def test_a_plan_is_wanted_by_each_part_of_its_target_and_none_without_its_fields() -> None:
    target = "e:s:/v1/items:cancel"
    assert Wanted(executor="e", service="s", api="/v1/items:cancel").has("queued", target, None)
    for wanted in (Wanted(executor="s"), Wanted(service="e"), Wanted(api="cancel"), Wanted(tag="red")):
        assert not wanted.has("queued", target, "blue")
    for state, place in (("queued", None), (None, target), (None, None)):
        assert not Wanted().has(state, place, None)
