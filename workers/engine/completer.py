"""The completer stores decisions in batches, with the breakers' reports and the metrics.

(Databases know this as group commit.) A decision that Redis did not take is offered again, until its lease is
lost: trouble with Redis is never a plan's failure.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import Counter
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from dispatcher.errors import LedgerRefusedError, LedgerUnavailableError
from dispatcher.ledger.leases import Settlement, Standing
from workers.engine.decisions import Complete, Fail, Release, Retry, Snooze
from workers.engine.lease_keeper import MANY_HELD
from workers.engine.loop import Loop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from dispatcher.ledger.leases import Lease, Leases, Unreadable
    from dispatcher.ledger.record import PlanRecord
    from dispatcher.ledger.scripts import Call
    from dispatcher.tasks.results import ResultCodec
    from workers.breaker.rules import Admission, Report
    from workers.breaker.shared import SharedBreaker
    from workers.engine.decisions import Decision
    from workers.engine.execution import Execution
    from workers.engine.lease_keeper import LeaseKeeper

__all__ = ["Completer"]

GROUP_COMMIT_S = 0.005
"""Between two groups, so that decisions which come together are stored together."""

BUSY_COMMIT_S = 0.1
"""How long if `MANY_HELD` leases have steps that are not done, and no thread waits for an answer."""

RESTING_COMMIT_S = 0.05
"""How long if the group has only plans that rest for `RESTS_MS` or longer: nothing waits for them."""

RESTS_MS = 500

MOST_AT_ONCE = 200
MOST_BYTES = 4_000_000
RETRY_GRACE_MS = 5_000
"""How long after its time a retry's message is waited for. Then a worker begins the attempt without it."""

STORY = ("failures", "stopping_ms")
"""Fields that are kept of the last step of a plan that fails, for people."""

LOST = Standing(-1)

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Item:
    """A settlement on its way to the ledger."""

    settlement: Settlement
    executor: str = ""
    execution: Execution | None = None
    answer: Future[Standing] = field(default_factory=Future)
    rests: bool = False
    """Whether the plan rests: from its decision on, not from when that is stored."""

    made_at: float = 0.0
    """When it was handed over, by the monotonic clock."""

    def at(self, now: float) -> Settlement:
        """The settlement of a plan that rests, at this moment of the monotonic clock."""
        after_ms, *fields = self.settlement.args
        left_ms = int(after_ms) - round((now - self.made_at) * 1000)
        return replace(self.settlement, args=[max(0, left_ms), *fields])


class Completer(Loop):
    """See the module. Any thread may hand it decisions."""

    def __init__(
        self,
        leases: Leases,
        keeper: LeaseKeeper,
        results: ResultCodec,
        breakers: Mapping[str, SharedBreaker],
        *,
        written: Callable[[Standing, str, Execution | None], None],
    ) -> None:
        """`written` is called for each settlement once it was answered, with the plan's id."""
        super().__init__("completer")
        self._leases = leases
        self._keeper = keeper
        self._results = results
        self._breakers = breakers
        self._written = written
        self._queue: SimpleQueue[_Item | None] = SimpleQueue()
        self._pending: tuple[list[_Item], list[Call]] | None = None
        """What Redis did not take, with the calls that go along."""

        self._written_at = -math.inf
        """When the last group was stored, by the monotonic clock."""

        self._counting = threading.Lock()
        self._unanswered = 0
        self._ended = False
        self._awaited = threading.Event()
        """Set if a thread waits for an answer."""

        self._pressing = threading.Event()
        """Set if a client or a plan's next step waits for an answer."""

    def settle(self, lease: Lease, execution: Execution) -> Future[Standing]:
        """Have the decision stored; how the ledger will answer."""
        decision = execution.decision
        answer = self._put(_Item(self._settlement(lease, decision), lease.record.executor, execution))
        if isinstance(decision, Retry | Fail):
            self._awaited.set()
        if not isinstance(decision, Snooze) or decision.after_ms < RESTS_MS:
            self._pressing.set()
        return answer

    def release(self, lease: Lease) -> Future[Standing]:
        """Give back a lease whose step was not begun: the plan is due at once."""
        answer = self._put(_Item(Settlement(lease.plan_id, lease.token, "release", [int(lease.first_step)])))
        self._pressing.set()
        return answer

    def snooze(self, lease: Lease, after_ms: int) -> Future[Standing]:
        """Give back a lease whose step was not begun: the plan is due after a while."""
        if lease.first_step:
            return self._put(
                _Item(Settlement(lease.plan_id, lease.token, "snooze", [after_ms, "started_ms", ""]))
            )
        return self._put(_Item(Settlement(lease.plan_id, lease.token, "snooze", [after_ms])))

    def set_aside(self, plan: Unreadable) -> Future[Standing]:
        """Leave the plan to workers of another version."""
        logger.error("plan %s is set aside, its record cannot be read: %s", plan.plan_id, plan.why)
        return self._put(_Item(Settlement(plan.plan_id, plan.token, "aside", [plan.why])))

    def stop(self) -> None:
        """Store what is left, while its leases may last, and end. What comes later is lost."""
        give_up_at = time.monotonic() + self._leases.lease_s
        while self._unanswered and self._thread.is_alive() and time.monotonic() < give_up_at:
            time.sleep(GROUP_COMMIT_S)
        with self._changed:
            self._stopping = True
        self._queue.put(None)
        super().stop()
        with self._counting:
            self._ended = True
        left = self._left()
        for item in left:
            item.answer.set_result(LOST)
        if left:
            logger.warning(
                "Redis did not take %d decisions; their plans go on once their leases end", len(left)
            )

    def turn(self) -> float:
        if self._pending is None:
            collected = self._collect()
            self._pending = collected, list(self._recordings(collected))
        batch, piggyback = self._pending  # offered again if Redis does not take it
        answers = self._write(batch, piggyback)
        self._written_at = time.monotonic()
        self._pending = None
        for item, answer in zip(batch, answers, strict=True):
            self._keeper.drop(item.settlement.plan_id, item.settlement.token)
            item.answer.set_result(answer)
        for item, answer in zip(batch, answers, strict=True):
            self._follow_up(item, answer)
        with self._counting:
            self._unanswered -= len(batch)
        return 0.0

    def _follow_up(self, item: _Item, answer: Standing) -> None:
        try:
            self._written(answer, item.settlement.plan_id, item.execution)
        except Exception:
            logger.exception("plan %s: what follows its decision broke off", item.settlement.plan_id)

    def _put(self, item: _Item) -> Future[Standing]:
        item.made_at, item.rests = time.monotonic(), item.settlement.kind == "snooze"
        with self._counting:
            if self._ended:
                item.answer.set_result(LOST)
                return item.answer
            self._unanswered += 1
            self._queue.put(item)
        return item.answer

    def _left(self) -> list[_Item]:
        """What the ledger has not answered. The thread has ended."""
        left = [] if self._pending is None else self._pending[0]
        while not self._queue.empty():
            item = self._queue.get()
            if item is not None:
                left.append(item)
        return left

    def _collect(self) -> list[_Item]:
        """What has come, and what comes within the time of a group commit."""
        first = self._queue.get()
        if first is None:
            return []
        self._await_group()
        batch, size = [first], first.settlement.size
        while len(batch) < MOST_AT_ONCE and size < MOST_BYTES:
            try:
                item = self._queue.get_nowait()
            except Empty:
                break
            if item is not None:
                batch.append(item)
                size += 0 if item.rests else item.settlement.size  # only results are large
        return batch

    def _await_group(self) -> None:
        """Let more decisions come: the more of them share an exchange, the less each costs.

        An end that comes after a quiet time does not wait.
        """
        if self._queue.qsize() >= MOST_AT_ONCE - 1:
            return  # a whole group is there; what waits for an answer may be in the next one
        self._pressing.wait(RESTING_COMMIT_S - GROUP_COMMIT_S)
        time.sleep(max(0.0, self._written_at + GROUP_COMMIT_S - time.monotonic()))
        if len(self._keeper) - self._unanswered >= MANY_HELD:
            self._awaited.wait(BUSY_COMMIT_S - GROUP_COMMIT_S)
        self._awaited.clear()
        self._pressing.clear()

    def _write(self, batch: Sequence[_Item], piggyback: Sequence[Call]) -> list[Standing]:
        """How each was answered. A settlement that is a defect spoils no other.

        Raises `LedgerUnavailableError` if Redis takes none.
        """
        if not batch:
            return []
        try:
            now = time.monotonic()
            settlements = [item.at(now) if item.rests else item.settlement for item in batch]
            return self._leases.settle(settlements, piggyback)
        except Exception as exc:
            if isinstance(exc, LedgerUnavailableError) and not isinstance(exc, LedgerRefusedError):
                raise  # it passes
            if len(batch) == 1 and not piggyback:
                self._leases.renew({})  # raises if Redis refuses the worker itself: its password, for example
                logger.exception("plan %s: its decision cannot be written", batch[0].settlement.plan_id)
                return [LOST]
        return [answer for item in batch for answer in self._write([item], ())]

    def _recordings(self, batch: Sequence[_Item]) -> Iterator[Call]:
        """One call for each Executor: what its breaker learns, and what its metrics count."""
        reports: dict[str, list[tuple[Admission, Report]]] = {}
        counts: dict[str, Counter[str]] = {}
        for item in batch:
            execution, breaker = item.execution, self._breakers.get(item.executor)
            if execution is None or breaker is None:
                continue
            if execution.admission.local:
                breaker.record(execution.admission, execution.report)
            elif execution.reports:
                reports.setdefault(item.executor, []).append((execution.admission, execution.report))
            counts.setdefault(item.executor, Counter()).update(execution.counts)
        for executor, counted in counts.items():
            reported = reports.get(executor, [])
            if reported or counted:
                yield self._breakers[executor].recording(reported, counted)

    def _settlement(self, lease: Lease, decision: Decision) -> Settlement:
        plan_id, token, record = lease.plan_id, lease.token, decision.record
        fields = [each for pair in record.changes_since(lease.record).items() for each in pair]
        match decision:
            case Snooze(after_ms=after_ms):
                return Settlement(plan_id, token, "snooze", [after_ms, *fields])
            case Retry(after_s=after_s, cause=cause):
                times = [round(after_s * 1000), RETRY_GRACE_MS, record.retries + 1]
                stored = [self._results.key(plan_id), self._results.encode_retry(plan_id, cause)]
                return Settlement(plan_id, token, "retry", [*times, *stored, *fields])
            case Release(gone_in_ms=gone_in_ms):
                return Settlement(plan_id, token, "known", [gone_in_ms])
            case Complete(observation=observation, gone_in_ms=gone_in_ms):
                result, more = self._results.encode(plan_id, observation), []
            case Fail(error=error, gone_in_ms=gone_in_ms):
                result = self._results.encode(plan_id, error)
                kept = fields if decision.doubt else _story(record, lease.record)
                more = [decision.doubt, decision.look_again_ms, *kept] if kept else []
        how = [record.state, record.apply_id or "", record.cause or ""]
        return Settlement(
            plan_id, token, "end", [*how, self._results.key(plan_id), result, gone_in_ms, *more]
        )


def _story(record: PlanRecord, before: PlanRecord) -> list[str | int]:
    """What a step that ends a plan without an observation adds to the plan's story, as fields and values."""
    changed = record.changes_since(before)
    return [each for name in STORY if name in changed for each in (name, changed[name])]
