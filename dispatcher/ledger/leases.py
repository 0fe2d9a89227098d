"""The workers' side of the ledger: leases are granted, renewed and settled, many in one call.

Each call is one Lua script on the server's clock; `lua/prelude.lua` has the schema of the keys. A decision
under a lease that was lost changes nothing, and a decision may be sent again if its answer was lost.
"""

from __future__ import annotations

import itertools
import time
import uuid
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from dispatcher.errors import ExecutorClientError
from dispatcher.ledger.connection import RedisErrors
from dispatcher.ledger.ledger import FIRST_DUE_MS, RECHECK_MS
from dispatcher.ledger.reach import reaches_of
from dispatcher.ledger.record import PlanRecord
from dispatcher.ledger.scripts import Call, Script, Scripts

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import redis

    from dispatcher.ledger.reach import Reach
    from dispatcher.settings.settings import Settings

__all__ = ["Denial", "Fetched", "Lease", "Leases", "Named", "Settlement", "Standing"]

FETCH, SETTLE, RENEW, ANNOUNCE_APPLY = (
    Script.of("dispatcher.ledger", "prelude", name) for name in ("fetch", "settle", "renew", "announce_apply")
)


class Named(NamedTuple):
    """A Celery message: the plan that it names, and how many messages were sent for the plan before it."""

    plan_id: str
    retries: int


class Denial(Enum):
    """Why a named plan gets no lease."""

    UNKNOWN = "unknown"
    OVER = "over"
    ELSEWHERE = "elsewhere"
    """Another worker is carrying out the plan, or the plan awaits another message."""

    WAITS = "waits"
    """For its start time or its target."""

    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to carry out one step of a plan, until the lease ends."""

    record: PlanRecord
    token: str
    now_ms: int
    """The server's time when the lease was granted."""

    granted_at: float
    """The moment of the monotonic clock at which the answer arrived."""

    first_step: bool = False
    """Whether no earlier lease of the plan began a step."""

    breaker: tuple[str, str] = ("", "0")
    """State and epoch of the circuit breaker of the plan's Executor, as Redis had them."""

    in_flight: int = 0
    """How many plans have not ended, in the whole fleet."""

    @property
    def plan_id(self) -> str:
        """Id of the plan."""
        return self.record.id

    @property
    def time_ms(self) -> int:
        """The server's time at this moment, as far as this machine's monotonic clock knows."""
        return self.now_ms + round((time.monotonic() - self.granted_at) * 1000)


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A lease of a plan whose record this version cannot read."""

    plan_id: str
    token: str
    why: str


@dataclass(frozen=True, slots=True)
class Fetched:
    """What one call to the ledger granted."""

    named: list[Lease | Denial]
    """In the order in which they were asked for."""

    due: list[Lease]
    next_due_s: float | None
    """Seconds until the next plan is due. None if the ledger is empty."""

    unreadable: list[Unreadable]


@dataclass(frozen=True, slots=True)
class Settlement:
    """What a step decided, as the script `settle` takes it."""

    plan_id: str
    token: str
    kind: Literal["snooze", "retry", "end", "known", "release", "aside"]
    args: Sequence[str | int | float]

    @property
    def size(self) -> int:
        """Roughly how many bytes it takes on the wire."""
        return sum([len(each) for each in self.args if isinstance(each, str)])


class Standing(NamedTuple):
    """How a settlement was answered."""

    due_ms: int
    """In how many milliseconds the plan is due. Negative: see the properties."""

    @property
    def lost(self) -> bool:
        """Whether the lease was lost: nothing was written."""
        return self.due_ms == -1

    @property
    def cancelled(self) -> bool:
        """Whether the plan was cancelled meanwhile, so that no retry must be sent."""
        return self.due_ms == -2  # noqa: PLR2004 (the script's answer)


class Leases:
    """Each method raises `LedgerUnavailableError` if Redis does not carry the call out."""

    def __init__(
        self, client: redis.Redis, settings: Settings, reaches: Mapping[str, Reach] | None = None
    ) -> None:
        """`reaches`: how far faults of each Executor reach, by the Executors' names. No further if absent."""
        self._reaches = reaches_of(settings, reaches or {})
        self._scripts = Scripts(client)
        self._redis_errors = RedisErrors(settings.redis_address)
        self._prefix = f"{{{settings.key_prefix}}}:"
        self._due = f"{self._prefix}due"
        self._queue = settings.queue if settings.broker_shares_redis else ""
        self._keep_s = settings.result_expires_sec
        self.lease_s = settings.worker.lease_sec
        self._lease_ms = round(settings.worker.lease_sec * 1000)
        self._process = uuid.uuid4().hex[:12]
        self._calls = itertools.count(1)

    def fetch(self, named: Sequence[Named], limit: int) -> Fetched:
        """Leases of the named plans, and of up to `limit` due ones."""
        token = f"{self._process}:{next(self._calls)}"
        args: list[str | float] = [self._prefix, self._queue, token, self._lease_ms, RECHECK_MS, FIRST_DUE_MS]
        args += [limit, self._reaches, *(each for name in named for each in name)]
        next_due_ms, in_flight, answers, due = self._run(FETCH, args)
        leases = [_lease(row, in_flight) if isinstance(row, list) else Denial(row) for row in answers]
        granted = [_lease(row, in_flight) for row in due]
        unreadable = [each for each in (*leases, *granted) if isinstance(each, Unreadable)]
        return Fetched(
            [Denial.UNREADABLE if isinstance(each, Unreadable) else each for each in leases],
            [each for each in granted if isinstance(each, Lease)],
            None if next_due_ms < 0 else next_due_ms / 1000,
            unreadable,
        )

    def settle(self, settlements: Sequence[Settlement], piggyback: Sequence[Call] = ()) -> list[Standing]:
        """Write the decisions down, in one round trip with the calls `piggyback`; how each was answered."""
        args: list[str | float] = [self._prefix, self._keep_s]
        for each in settlements:
            args += [each.plan_id, each.token, each.kind, len(each.args), *each.args]
        calls = [Call(SETTLE, [self._due], args)] if settlements else []
        with self._redis_errors:
            replies = self._scripts.run([*calls, *piggyback])
        return [Standing(int(answer)) for answer in replies[0]] if settlements else []

    def renew(self, held: Mapping[str, str]) -> list[str]:
        """Renew the leases, given as plan id and token; ids of the plans whose leases were lost."""
        pairs = list(held.items())
        standing = self._run(RENEW, [self._prefix, self._lease_ms, *itertools.chain.from_iterable(pairs)])
        return [plan_id for (plan_id, _), holds in zip(pairs, standing, strict=True) if not holds]

    def announce_apply(self, lease: Lease) -> bool:
        """Record that an apply begins that must not be repeated. False if the lease was lost."""
        with self._redis_errors:
            key = f"{self._prefix}plan:{lease.plan_id}"
            return bool(self._scripts.run([Call(ANNOUNCE_APPLY, [key], [self._prefix, lease.token])])[0])

    def _run(self, script: Script, args: Sequence[str | float]) -> Any:
        with self._redis_errors:
            return self._scripts.run([Call(script, [self._due], args)])[0]


def _lease(row: list[Any], in_flight: int) -> Lease | Unreadable:
    plan_id, token, first_step, in_the_way, state, epoch, now_ms, found, changed = row
    try:
        record = PlanRecord.from_fields(plan_id, dict(_pairs(found + changed)), in_the_way)
    except (
        ExecutorClientError,
        ValueError,
        KeyError,
        TypeError,
        ArithmeticError,
    ) as exc:  # what another version, or a hand, has written
        return Unreadable(plan_id, token, f"{type(exc).__name__}: {exc}"[:200])
    breaker = (state, epoch)
    return Lease(record, token, int(now_ms), time.monotonic(), bool(first_step), breaker, in_flight)


def _pairs(flat: list[str]) -> Iterator[tuple[str, str]]:
    return zip(flat[::2], flat[1::2], strict=True)
