"""The plan ledger: the truth about every plan, in Redis.

Each change is one Lua script on the server's clock; the schema of the keys is in `lua/prelude.lua`.
Each call may be repeated if its answer was lost. Workers take plans from the ledger by leases: see `Leases`.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, TypeVar, cast

import redis

from dispatcher.errors import RecordUnreadableError
from dispatcher.ledger.connection import (
    RedisErrors,
    is_trouble,
    patient_client,
    reply_of,
)
from dispatcher.ledger.exchanges import Exchange, asking, carry_out, exchanging
from dispatcher.ledger.record import PlanRecord, read_record
from dispatcher.ledger.scripts import Call, Script, Scripts, calling, trying
from dispatcher.ledger.submission import Submission, outcome_of, target_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dispatcher.errors import ExecutorClientError
    from dispatcher.settings.settings import Settings

__all__ = [
    "Ledger",
    "Submission",
    "connect",
    "record_of",
    "target_of",
]

T = TypeVar("T")

RECHECK_MS = 60_000
"""How often a plan that waits for its target looks by itself. It is due as soon as its turn comes."""

logger = logging.getLogger(__name__)

FIRST_DUE_MS = 60_000
"""How long a new plan waits for its Celery message before a worker begins it without one."""

SUBMIT, CANCEL, HALT, RELEASE = (
    Script.of("dispatcher.ledger", "prelude", name) for name in ("submit", "cancel", "halt", "release")
)

LONGEST_REASON = 1_000
"""Characters that are kept of why a plan was cancelled, or everything halted: a full Redis takes them."""


class Ledger:
    """Each method raises `LedgerUnavailableError` if Redis does not answer, unless it says otherwise."""

    def __init__(self, client: redis.Redis, settings: Settings) -> None:
        self._client = client
        self._scripts = Scripts(client)
        self._redis_errors = RedisErrors(settings.redis_address)
        self.prefix = f"{{{settings.key_prefix}}}:"
        """What all keys begin with."""

        self._due = f"{self.prefix}due"
        self._keep_s = settings.result_expires_sec
        self.counts_key = f"{self.prefix}counts"
        """The hash of what the ledger counts."""

        self.halt_key = f"{self.prefix}halt"
        """The string that says why the dispatcher is halted."""

        self.aside_key = f"{self.prefix}aside"
        """The hash of the plans that no worker of this version can read, each with the reason."""

        self.history_key = f"{self.prefix}history"
        """The sorted set of the plans whose records exist, by the microsecond of their submission."""

        self.doubts_key = f"{self.prefix}doubts"
        """The sorted set of the plans that ended while it was unknown whether their faults were over."""

    def submit(self, submissions: Sequence[Submission]) -> list[bool | ExecutorClientError]:
        """Take the plans on, in one call to Redis.

        For each: True if it is new, False if it is known already, otherwise why it was refused:
        `PlanConflictError` (the id belongs to another plan, or the target to one), `InvalidPlanError` (its
        `start_time` has passed), `DispatchHaltedError`, `LedgerUnavailableError` (Redis refused the command).
        """
        return self.carry_out(self.submitting(submissions))

    def submitting(self, submissions: Sequence[Submission]) -> Exchange[list[bool | ExecutorClientError]]:
        """`submit`, apart from the I/O."""
        replies = yield from trying([self._submit_call(each) for each in submissions])
        return [self._outcome(each, reply) for each, reply in zip(submissions, replies, strict=True)]

    def cancel(self, plan_ids: Sequence[str], reason: str, *, only_begun: bool = False) -> list[bool | None]:
        """Mark the plans as cancelled; workers stop their faults. For each: True if it is cancelled.

        False if it has ended already, None if no such plan exists. `only_begun` passes over, as False, plans
        whose faults cannot run yet.
        """
        return self.carry_out(self.cancelling(plan_ids, reason, only_begun=only_begun))

    def cancelling(
        self, plan_ids: Sequence[str], reason: str, *, only_begun: bool = False
    ) -> Exchange[list[bool | None]]:
        """`cancel`, apart from the I/O."""
        which = "begun" if only_begun else "all"
        args = [self.prefix, reason[:LONGEST_REASON], which, *plan_ids]
        [answers] = yield from calling([Call(CANCEL, [self._due], args)])
        return [None if answer < 0 else answer == 1 for answer in answers]

    def halt(self, reason: str) -> None:
        """Refuse new plans from now on. Works on a Redis whose memory is full, too."""
        self._call(HALT, [self.halt_key], [self.prefix, reason[:LONGEST_REASON]])

    def resume(self) -> bool:
        """Take plans again. False if they were not refused."""
        with self._redis_errors:
            return bool(self._client.delete(self.halt_key))

    def halted(self) -> str | None:
        """Why the dispatcher is halted. None if it is not."""
        with self._redis_errors:
            return cast("str | None", self._client.get(self.halt_key))

    def in_doubt(self) -> list[str]:
        """Ids of the plans that have ended while it is unknown whether their faults are over."""
        with self._redis_errors:
            return cast("list[str]", self._client.zrange(self.doubts_key, 0, -1))

    def release(self, target: str, reason: str) -> list[str]:
        """Free a target that faults in doubt hold (see `target_of`); ids of their plans."""
        args: list[str | float] = [self.prefix, target, reason[:LONGEST_REASON], self._keep_s]
        return cast("list[str]", self._call(RELEASE, [self._due], args))

    def in_flight(self, limit: int | None = None) -> list[str]:
        """Ids of all plans that have not ended, or of the `limit` plans that are due soonest."""
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
        return self.carry_out(self.reading(plan_ids))

    def reading(self, plan_ids: Sequence[str]) -> Exchange[list[PlanRecord | RecordUnreadableError | None]]:
        """`try_read`, apart from the I/O."""
        replies = yield from exchanging([["HGETALL", self._plan(plan_id)] for plan_id in plan_ids])
        return [record_of(plan_id, reply) for plan_id, reply in zip(plan_ids, replies, strict=True)]

    def now_ms(self) -> int:
        """The server's time."""
        return self.carry_out(self.asking_the_time())

    def asking_the_time(self) -> Exchange[int]:
        """`now_ms`, apart from the I/O."""
        [[seconds, microseconds]] = yield from asking([["TIME"]])
        return int(seconds) * 1000 + int(microseconds) // 1000

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
            self._client.set(f"{self.prefix}write", "", px=1)

    def ping(self) -> None:
        """Raises `LedgerUnavailableError` unless Redis answers."""
        with self._redis_errors:
            self._client.ping()

    def execute_all(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """Carry out several Redis commands in one round trip; their replies."""
        return self.carry_out(asking(commands))

    def carry_out(self, steps: Exchange[T]) -> T:
        """Carry an exchange out; what it ends with."""
        with self._redis_errors:
            return carry_out(self._client, steps)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    @property
    def due_key(self) -> str:
        """The sorted set of the plans that have not ended."""
        return self._due

    def plan_key(self, plan_id: str) -> str:
        """Where a plan's record is."""
        return self._plan(plan_id)

    def ended_key(self, plan_id: str) -> str:
        """The list that has an element once the plan has ended."""
        return f"{self.prefix}ended:{plan_id}"

    def health_key(self, executor: str) -> str:
        """The list whose one element is what the fleet knows of an Executor's health."""
        return f"{self.prefix}health:{executor}"

    def metrics_key(self, executor: str) -> str:
        """The hash of what the workers count of their calls to an Executor."""
        return f"{self.prefix}metrics:{executor}"

    def breaker_key(self, executor: str) -> str:
        """The hash of an Executor's circuit breaker."""
        return f"{self.prefix}breaker:{executor}"

    def completions_key(self, batch: str) -> str:
        """The stream of a batch's ended plans."""
        return f"{self.prefix}completions:{batch}"

    def batch_key(self, batch: str) -> str:
        """The list of a batch's plans, in the order of submission."""
        return f"{self.prefix}batch:{batch}"

    def _submit_call(self, submission: Submission) -> Call:
        keys = [self._plan(submission.plan_id), self._due]
        args = [self.prefix, self._keep_s, *submission.arguments, FIRST_DUE_MS, submission.traceparent]
        return Call(SUBMIT, keys, args)

    def _outcome(self, submission: Submission, reply: Any) -> bool | ExecutorClientError:
        if isinstance(reply, redis.ResponseError):
            return self._redis_errors.translate(reply)
        return outcome_of(submission, *reply)

    def _plan(self, plan_id: str) -> str:
        return f"{self.prefix}plan:{plan_id}"

    def _call(self, script: Script, keys: Sequence[str], args: Sequence[str | float]) -> Any:
        with self._redis_errors:
            return self._scripts.run([Call(script, keys, args)])[0]


def connect(settings: Settings) -> Ledger:
    """A ledger on the Redis that the settings name. Nothing is sent yet."""
    return Ledger(patient_client(settings), settings)


def record_of(plan_id: str, reply: Any) -> PlanRecord | RecordUnreadableError | None:
    """The record in Redis's reply to `HGETALL`. Raises `redis.ResponseError` for trouble with Redis."""
    if isinstance(reply, redis.ResponseError):
        if is_trouble(reply):
            raise reply
        return RecordUnreadableError(f"plan {plan_id} cannot be read: {reply_of(reply)}", plan_id)
    return read_record(plan_id, reply) if reply else None
