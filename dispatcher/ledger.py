"""The plan ledger: the truth about every plan, in Redis.

Each change is one Lua script on the server's clock; the schema of the keys stands in `lua/prelude.lua`.
A step that holds a stale token changes nothing, and each call may be repeated when its answer was lost.
What ends a step is posted: the ledger tells in time what came of it, and the caller may go on meanwhile.
"""

from __future__ import annotations

import itertools
import logging
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import redis

from dispatcher.connection import (
    RedisErrors,
    exchange,
    is_trouble,
    patient_client,
    replies_of,
    reply_of,
)
from dispatcher.errors import (
    DispatchHaltedError,
    ExecutorClientError,
    InvalidPlanError,
    LedgerUnavailableError,
    PlanConflictError,
    RecordUnreadableError,
)
from dispatcher.record import Order, PlanRecord, read_record
from dispatcher.scripts import Call, Script, Scripts
from dispatcher.wake_ups import WakeUp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from dispatcher.scripts import Outcome
    from dispatcher.settings import Settings

    Settled = int | None | LedgerUnavailableError
    """In how many ms a plan may be due that a step has let go, the same or the next in line.

    None where the step's token is stale: nothing was written.
    """

__all__ = [
    "Claim",
    "Ledger",
    "Step",
    "Submission",
    "connect",
]

NEAR_S = 2.0
"""No waker sleeps for longer."""

RECHECK_MS = 60_000
"""How often a plan that waits for its target looks by itself; it is woken when its turn comes."""

logger = logging.getLogger(__name__)

SUBMIT, BEGIN, PARK, FINISH, CANCEL, CLAIM_DUE, HALT = (
    Script.of("dispatcher", "prelude", name)
    for name in ("submit", "begin", "park", "finish", "cancel", "claim_due", "halt")
)

LONGEST_REASON = 1_000
"""Characters that are kept of why a plan was cancelled, or everything halted: a full Redis takes them."""


@dataclass(frozen=True, slots=True)
class Submission:
    """A plan on its way into the ledger."""

    plan_id: str
    order: Order
    expires_after_ms: int | None = None
    batch: str = ""
    traceparent: str = ""
    """The span that submits it (W3C Trace Context). It is no part of what is submitted."""

    @property
    def target(self) -> str:
        """What it wants for itself."""
        plan = self.order.plan
        return f"{self.order.executor}:{plan.service}:{plan.api}"

    def first_wake_up(self, now_s: float) -> WakeUp | None:
        """The wake-up that its submitter sends. None for a plan that starts later: the waker sees to that.

        Between "now" and "later" lie starts so near that a sleeping waker might miss them.
        """
        start_time = self.order.plan.start_time
        after_s = 0.0 if start_time is None else max(0.0, start_time.timestamp() - now_s)
        return None if after_s > NEAR_S else WakeUp(self.plan_id, str(self.order.plan), after_s=after_s)


@dataclass(frozen=True, slots=True)
class Step:
    """The right to act on a plan, until the lease ends or another step begins."""

    record: PlanRecord
    token: str
    now_ms: int
    breaker: tuple[str, str] = ("", "0")
    """State and epoch of its Executor's circuit breaker, as Redis has them."""


@dataclass(frozen=True, slots=True)
class Claim:
    """Plans that the caller must wake now, and when to look again."""

    wake_ups: list[WakeUp]
    next_due_ms: int | None
    """Milliseconds until the next plan is due. None while no plan is in the ledger."""


class Ledger:
    """Each method raises `LedgerUnavailableError` where Redis does not answer, unless it says otherwise."""

    def __init__(
        self, client: redis.Redis, settings: Settings, scripts: Callable[[redis.Redis], Scripts] = Scripts
    ) -> None:
        """`scripts` makes what carries out scripts over a client."""
        self._client = client
        self._scripts = scripts(client)
        self._redis_errors = RedisErrors(settings.redis_address)
        self._prefix = f"{{{settings.key_prefix}}}:"
        self._due = f"{self._prefix}due"
        self._queue = settings.queue
        self.counts_key = f"{self._prefix}counts"
        """The hash of what the ledger counts."""

        self.halt_key = f"{self._prefix}halt"
        """The string that says why the dispatcher is halted."""

        self._keep_s = settings.result_expires_sec
        self._waker = settings.waker

    def submit(self, submissions: Sequence[Submission]) -> list[bool | ExecutorClientError]:
        """Take the plans on, in one call to Redis.

        For each: True where it is new, False where it is known already, else why it was refused:
        `PlanConflictError` (the id belongs to another plan, or the target to one), `InvalidPlanError` (its
        `start_time` has passed), `DispatchHaltedError`.
        """
        calls = [
            Call(SUBMIT, [self._plan(each.plan_id), self._due], self._arguments(each)) for each in submissions
        ]
        with self._redis_errors:
            answers = self._scripts.run(calls)
        return [_outcome(each, *answer) for each, answer in zip(submissions, answers, strict=True)]

    def begin(self, plan_id: str, token: str, lease_ms: int) -> Step | None:
        """Take the lease, and the plan's target.

        None where the plan is unknown, over, not due, waits for its target, or is in another step's hands.
        """
        answer = self._call(
            BEGIN,
            [self._plan(plan_id), self._due],
            [self._prefix, plan_id, token, lease_ms, RECHECK_MS],
        )
        if answer is None:
            return None
        now_ms, in_the_way, breaker_state, breaker_epoch, found, changed = answer
        pairs = found + changed
        fields = dict(zip(pairs[::2], pairs[1::2], strict=True))
        record = PlanRecord.from_fields(plan_id, fields, in_the_way)
        return Step(record, token, int(now_ms), (breaker_state, breaker_epoch))

    def park(
        self,
        record: PlanRecord,
        token: str,
        after_ms: int,
        *,
        woken_otherwise: bool = False,
        beside: Sequence[Call] = (),
        then: Callable[[Settled], None],
    ) -> None:
        """Give the lease back until the plan is due again, `after_ms` from now.

        `then` hears how long that is in fact (a plan that was cancelled meanwhile is due at once), or of
        Redis's silence.
        Where another message will wake the plan (`woken_otherwise`), the waker gives that one time.
        `beside` are calls that go along in the same round trip.
        """
        fields = itertools.chain.from_iterable(record.to_fields().items())
        patience_ms = _ms(self._waker.patience_sec) if woken_otherwise else 0
        keys = [self._plan(record.id), self._due]
        args = [record.id, token, after_ms, patience_ms, *fields]
        self._settle(Call(PARK, keys, args), beside, then)

    def finish(
        self,
        record: PlanRecord,
        token: str,
        result_key: str,
        result: str,
        *,
        alive_ms: int = 0,
        beside: Sequence[Call] = (),
        then: Callable[[Settled], None],
    ) -> None:
        """End the plan and store its result, in one.

        `then` hears that the next plan in line may be due now, or of Redis's silence.

        `result_key` and `result` are what Celery's result backend expects. The plan keeps its target for
        `alive_ms` more, in which its fault may still be alive. `beside` are calls that go along in the same
        round trip.
        """
        keys = [self._plan(record.id), self._due, self.ended_key(record.id), result_key]
        args: list[str | float] = [
            self._prefix,
            record.id,
            token,
            record.state,
            record.apply_id or "",
            record.cause or "",
            result,
            self._keep_s,
            alive_ms,
        ]
        self._settle(Call(FINISH, keys, args), beside, then)

    def claim_due(self) -> Claim:
        """The plans that are due now. The caller wakes them; nobody else claims them meanwhile."""
        waker = self._waker
        next_due_ms, *flat = self._call(
            CLAIM_DUE,
            [self._due, self._queue, self.counts_key],
            [self._plan(""), waker.batch, _ms(waker.patience_sec), _ms(waker.max_patience_sec)],
        )
        found = zip(flat[::3], flat[1::3], flat[2::3], strict=True)
        wake_ups = [_wake_up(plan_id, order, urgent=bool(urgent)) for plan_id, order, urgent in found]
        return Claim(wake_ups, None if next_due_ms < 0 else next_due_ms)

    def cancel(self, plan_ids: Sequence[str], reason: str) -> list[WakeUp | None]:
        """Mark the plans as cancelled. For each: its wake-up, or None where it has ended or is unknown."""
        answers = self._call(CANCEL, [self._due], [self._plan(""), reason[:LONGEST_REASON], *plan_ids])
        return [
            _wake_up(plan_id, answer) if isinstance(answer, str) else None
            for plan_id, answer in zip(plan_ids, answers, strict=True)
        ]

    def wake(self, wake_ups: Iterable[WakeUp]) -> None:
        """Send the wake-ups, all at once.

        It is no error where Redis does not answer: the plans are in the ledger, and the waker wakes them.
        """
        messages = [wake_up.message(self._queue) for wake_up in wake_ups]
        if not messages:
            return
        try:
            with self._redis_errors:
                self._client.lpush(self._queue, *messages)
        except LedgerUnavailableError as exc:
            logger.warning("wake-ups not sent, the waker will send them again: %s", exc)

    def halt(self, reason: str) -> None:
        """Refuse new plans from now on. Works on a Redis whose memory is full, too."""
        self._call(HALT, [self.halt_key], [self._prefix, reason[:LONGEST_REASON]])

    def resume(self) -> bool:
        """Take plans again. False where they were not refused."""
        with self._redis_errors:
            return bool(self._client.delete(self.halt_key))

    def halted(self) -> str | None:
        """Why the dispatcher is halted. None where it is not."""
        with self._redis_errors:
            return cast("str | None", self._client.get(self.halt_key))

    def in_flight(self, limit: int | None = None) -> list[str]:
        """Ids of all plans that have not ended, or of so many that are due soonest."""
        with self._redis_errors:
            return cast("list[str]", self._client.zrange(self._due, 0, -1 if limit is None else limit - 1))

    def count_in_flight(self) -> int:
        """How many plans have not ended."""
        with self._redis_errors:
            return int(self._client.zcard(self._due))

    def read(self, plan_ids: Sequence[str]) -> list[PlanRecord | None]:
        """The plans as they are now. None for each that is unknown. Raises `RecordUnreadableError`."""
        records: list[PlanRecord | None] = []
        for record in self.try_read(plan_ids):
            if isinstance(record, RecordUnreadableError):
                raise record
            records.append(record)
        return records

    def try_read(self, plan_ids: Sequence[str]) -> list[PlanRecord | RecordUnreadableError | None]:
        """As `read`, but with the error in the place of each plan that cannot be read."""
        commands = [["HGETALL", self._plan(plan_id)] for plan_id in plan_ids]
        with self._redis_errors:
            replies = exchange(self._client, commands)
            return [_record(plan_id, reply) for plan_id, reply in zip(plan_ids, replies, strict=True)]

    def now_ms(self) -> int:
        """The server's time."""
        with self._redis_errors:
            seconds, microseconds = self._client.time()
        return seconds * 1000 + microseconds // 1000

    def late_s(self) -> float | None:
        """For how many seconds the plan has been due that has been due for the longest. None: no plan is."""
        with self._redis_errors:
            first = cast("list[tuple[str, float]]", self._client.zrange(self._due, 0, 0, withscores=True))
        late_ms = self.now_ms() - first[0][1] if first else 0.0
        return late_ms / 1000 if late_ms > 0 else None

    def server_info(self) -> dict[str, Any]:
        """What the Redis server says of itself (`INFO`)."""
        with self._redis_errors:
            return dict(self._client.info())

    def try_to_write(self) -> None:
        """Raises `LedgerUnavailableError`, which says why, if Redis takes no writes."""
        with self._redis_errors:
            self._client.set(f"{self._prefix}write", "", px=1)

    def ping(self) -> None:
        """Raises `LedgerUnavailableError` unless Redis answers."""
        with self._redis_errors:
            self._client.ping()

    def execute_all(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """Carry out several Redis commands in one round trip; their replies."""
        with self._redis_errors:
            return replies_of(exchange(self._client, commands))

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def plan_key(self, plan_id: str) -> str:
        """Where a plan's record is."""
        return self._plan(plan_id)

    def ended_key(self, plan_id: str) -> str:
        """The list that has an element once the plan has ended."""
        return f"{self._prefix}ended:{plan_id}"

    def health_key(self, executor: str) -> str:
        """The list whose one element is what the fleet knows of an Executor's health."""
        return f"{self._prefix}health:{executor}"

    def metrics_key(self, executor: str) -> str:
        """The hash of what the workers count of their calls to an Executor."""
        return f"{self._prefix}metrics:{executor}"

    def breaker_key(self, executor: str) -> str:
        """The hash of an Executor's circuit breaker."""
        return f"{self._prefix}breaker:{executor}"

    def completions_key(self, batch: str) -> str:
        """The stream of a batch's ended plans."""
        return f"{self._prefix}completions:{batch}"

    def _arguments(self, submission: Submission) -> list[str | int]:
        plan = submission.order.plan
        starts_ms = None if plan.start_time is None else math.floor(plan.start_time.timestamp() * 1000)
        return [
            self._prefix,
            submission.plan_id,
            submission.order.to_json(),
            submission.target,
            submission.order.conflict_policy,
            submission.batch,
            "" if submission.expires_after_ms is None else submission.expires_after_ms,
            "" if starts_ms is None else starts_ms,
            _ms(self._waker.patience_sec),
            submission.traceparent,
        ]

    def _plan(self, plan_id: str) -> str:
        return f"{self._prefix}plan:{plan_id}"

    def _call(self, script: Script, keys: Sequence[str], args: Sequence[str | float]) -> Any:
        with self._redis_errors:
            return self._scripts.run([Call(script, keys, args)])[0]

    def _settle(self, call: Call, beside: Sequence[Call], then: Callable[[Settled], None]) -> None:
        def hear(outcome: Outcome) -> None:
            if isinstance(outcome, redis.RedisError):
                then(self._redis_errors.translate(outcome))
            elif isinstance(outcome, BaseException):
                raise outcome
            else:
                then(outcome[0])

        self._scripts.post([call, *beside], hear)


def connect(settings: Settings, scripts: Callable[[redis.Redis], Scripts] = Scripts) -> Ledger:
    """A ledger on the Redis that the settings name. Nothing is sent yet. `scripts` as in `Ledger`."""
    return Ledger(patient_client(settings), settings, scripts)


def _record(plan_id: str, reply: Any) -> PlanRecord | RecordUnreadableError | None:
    """Raises `redis.ResponseError` for trouble with Redis."""
    if isinstance(reply, redis.ResponseError):
        if is_trouble(reply):
            raise reply
        return RecordUnreadableError(f"plan {plan_id} cannot be read: {reply_of(reply)}", plan_id)
    return read_record(plan_id, reply) if reply else None


def _outcome(submission: Submission, what: str, more: str = "") -> bool | ExecutorClientError:
    plan_id = submission.plan_id
    match what:
        case "new":
            return True
        case "known":
            return False
        case "taken":
            return PlanConflictError(f"plan id {plan_id} belongs to another plan: choose another id", plan_id)
        case "conflict":
            plan = submission.order.plan
            target = f"{plan.service} {plan.api}"
            return PlanConflictError(f"{target} is held by plan {more}: wait until it has ended", more)
        case "halted":
            return DispatchHaltedError(f"the dispatcher is halted ({more}): resume it, then submit again")
    problem = "has passed: choose a later time, or none to start at once"
    return InvalidPlanError(f"invalid plan: start_time {problem}", [["start_time", problem]])


def _wake_up(plan_id: str, order: str, *, urgent: bool = False) -> WakeUp:
    try:
        title = str(Order.model_validate_json(order).plan)
    except (ExecutorClientError, ValueError):  # another version wrote it
        title = plan_id
    return WakeUp(plan_id, title, urgent)


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
