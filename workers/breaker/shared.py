"""The circuit breaker of one Executor that the whole fleet shares.

Its state is in Redis, on the server's clock, changed by `lua/admit.lua`, `lua/record.lua` and, by a person's
hand, `lua/switch.lua`; the schema is in `lua/breaker.lua`. Nothing is held while a call is under way.
"""

from __future__ import annotations

import itertools
import logging
import random
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeVar, cast

import redis

from dispatcher.errors import RecordUnreadableError
from dispatcher.ledger.scripts import Call, Script, Scripts
from workers.breaker.local import LocalBreaker
from workers.breaker.rules import (
    NO_COUNTS,
    UNASKED,
    UNCOUNTED,
    Admission,
    Breaker,
    BreakerRules,
    BreakerState,
    Outcome,
    Rejection,
    Report,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

__all__ = ["Admission", "BreakerStatus", "Rejection", "Report", "SharedBreaker"]

ADMIT, RECORD, SWITCH = (
    Script.of("workers.breaker", "breaker", name) for name in ("admit", "record", "switch")
)

NUMBERS = ("since_ms", "until_ms", "failures", "opens", "half_opens", "closes")
"""Those of a breaker's fields that `status` shows."""

AWAY_S = 1.0
"""How long Redis is not asked again after it did not answer."""

T = TypeVar("T")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BreakerStatus:
    """A breaker as people see it. Times are milliseconds since 1970 on the Redis server's clock."""

    executor: str
    state: BreakerState
    reason: str
    since_ms: int | None
    until_ms: int | None
    """When an open breaker lets probes through. None if a person opened it, or if it is not open."""

    by_hand: bool
    """Whether a person put it into this state, which lasts until a person changes it."""

    failures: int
    """How many calls in a row have failed, while it is closed."""

    opens: int
    half_opens: int
    closes: int


class _Row(NamedTuple):
    """A report as the script `record` takes it."""

    id: str
    epoch: str
    outcome: str
    slow: int
    times: int = 1
    retry_after_ms: int = 0
    draw: float = 0.0
    reason: str = ""


def _merged(rows: Sequence[_Row]) -> Iterator[_Row]:
    """The rows, those that follow each other and are alike as one."""
    for row, group in itertools.groupby(rows):
        alike = list(group)
        if row.outcome == Outcome.SUCCESS and not row.id:
            yield row._replace(times=len(alike))
        else:
            yield from alike


class SharedBreaker(Breaker):
    """See `Breaker`. No call raises an error of Redis: a process that cannot reach it falls back to a local
    breaker.

    The client must decode responses, and give up on Redis within the time that a call may be held up.
    """

    def __init__(
        self,
        client: redis.Redis,
        key_prefix: str,
        executor: str,
        rules: BreakerRules,
        *,
        draw: Callable[[], float] = random.random,
    ) -> None:
        super().__init__(executor, rules)
        self._client = client
        self._scripts = Scripts(client)
        key = f"{{{key_prefix}}}:breaker:{executor}"
        self._keys = [key, f"{key}:probes", f"{{{key_prefix}}}:breaker-events"]
        self._metrics_key = f"{{{key_prefix}}}:metrics:{executor}"
        self._draw = draw
        self._local = LocalBreaker(executor, rules, draw=draw)
        self._away_until = 0.0
        self._known = ("", "0")
        self._known_at = 0.0

    def admit(self, *, retry: bool = False, in_line: bool = False) -> Admission | Rejection:
        rules, retry = self.rules, retry and self.rules.budget_enabled
        name = uuid.uuid4().hex
        if not (rules.enabled or retry):
            return Admission(name, UNCOUNTED)
        args: list[str | float] = [self.executor, name, int(rules.enabled), rules.lease_ms]
        args += [rules.half_open_probes, int(retry), rules.reserve, rules.per_ms, int(in_line), rules.slot_ms]
        replies = self._reach(lambda: self._scripts.run([Call(ADMIT, self._keys, args)]))
        if replies is None:
            return self._local.admit(retry=retry, in_line=in_line)
        [[what, number, text]] = replies
        if what == "granted":
            self.note("" if text == BreakerState.CLOSED else text, number)
            if text.endswith("!"):
                self._entered(BreakerState.HALF_OPEN, "its time is over, a probe goes out")
            return Admission(name, number if rules.enabled else UNCOUNTED)
        return Rejection(int(number) / 1000, text, budget_spent=what == "spent", by_hand=what == "by hand")

    def note(self, state: str, epoch: str) -> None:
        """Take in the state and epoch that Redis has just returned."""
        self._known, self._known_at = (state, epoch), time.monotonic()

    def note_at(self, at: float, state: str, epoch: str) -> None:
        """Take in what Redis returned at a moment of the monotonic clock, unless something newer is known."""
        if at > self._known_at:
            self._known, self._known_at = (state, epoch), at

    def admitted(self) -> Admission | None:
        """The admission that the breaker gives unasked, by its last known state. None: it must be asked.

        Redis returns the state with every lease and every settlement, so that it is as old as the last of
        these.
        """
        return self._admitted_by(*self._known)

    def _admitted_by(self, state: str, epoch: str) -> Admission | None:
        if not self.rules.enabled:
            return Admission("", UNCOUNTED)
        return Admission("", epoch) if state in {"", BreakerState.DISABLED} else None

    def recording(
        self, reports: Sequence[tuple[Admission, Report]], counts: Mapping[str, int] = NO_COUNTS
    ) -> Call:
        """What `record` would send for several calls, in their order, together with other calls to Redis."""
        rules = self.rules
        rows = [self._row(admission, report) for admission, report in reports]
        merged = list(_merged(rows))
        args: list[str | float] = [self.executor]
        args += [rules.failure_threshold, rules.failure_rate, rules.slow_rate, rules.min_calls]
        args += [rules.window_ms, rules.success_threshold, rules.open_ms, rules.max_open_ms]
        args += [rules.jitter, rules.ratio, len(merged)]
        args += itertools.chain(*merged, *counts.items())
        return Call(RECORD, [*self._keys, self._metrics_key], args, on_reply=self._recorded)

    def _row(self, admission: Admission, report: Report) -> _Row:
        if report.outcome is not Outcome.FAILURE:
            return _Row(admission.id, admission.epoch, report.outcome, int(self.rules.slow(report)))
        retry_after_ms = round(report.retry_after_s * 1000)
        more = (retry_after_ms, self._draw(), report.reason)
        return _Row(admission.id, admission.epoch, report.outcome, 0, 1, *more)

    def record(self, admission: Admission, report: Report, counts: Mapping[str, int] = NO_COUNTS) -> None:
        if admission.local:
            self._local.record(admission, report)
            admission, report = UNASKED, Report(Outcome.NONE)
        if admission is UNASKED and not counts:
            return
        call = self.recording([(admission, report)], counts)
        if self._reach(lambda: self._scripts.run([call])) is None:
            self._tell_local(report)

    def peek(self) -> Admission | None:
        found = self._reach(lambda: self._client.hmget(self._keys[0], "state", "epoch"))
        if found is None:
            return self._local.peek()
        state, epoch = map(str, (found[0] or "", found[1] or "0"))
        return self._admitted_by(state, epoch)

    def changes(self) -> Mapping[str, str | int]:
        names = ("opens", "half_opens", "closes")
        found = self._reach(lambda: self._client.hmget(self._keys[0], *names))
        if found is None:
            return self._local.changes()
        return {name: str(number) for name, number in zip(names, found, strict=True) if number is not None}

    def switch(self, state: BreakerState, reason: str) -> bool:
        """Raises `redis.RedisError`, because a person must know whether the switch was turned."""
        changed = bool(self._scripts.run([Call(SWITCH, self._keys, [self.executor, state, reason])])[0])
        if changed:
            self._entered(state, reason)
        return changed

    def reset(self, reason: str = "reset by hand") -> None:
        """Raises `redis.RedisError`."""
        self._scripts.run([Call(SWITCH, self._keys, [self.executor, "reset", reason])])
        self._entered(BreakerState.CLOSED, reason)

    def status(self) -> BreakerStatus:
        """Its present state. Raises `redis.RedisError`, and `RecordUnreadableError` for what is none."""
        fields = cast("dict[str, str]", self._client.hgetall(self._keys[0]))
        try:
            return self._status(fields)
        except ValueError as exc:
            message = f"the circuit breaker of executor {self.executor} cannot be read: {exc}"
            raise RecordUnreadableError(f"{message}; dispatcher breaker reset replaces it") from exc

    def _status(self, fields: Mapping[str, str]) -> BreakerStatus:
        numbers = {name: int(fields[name]) for name in NUMBERS if name in fields}
        state, until_ms = BreakerState(fields.get("state", "closed")), numbers.get("until_ms")
        opened = state is BreakerState.OPEN and until_ms is None
        return BreakerStatus(
            executor=self.executor,
            state=state,
            reason=fields.get("reason", ""),
            since_ms=numbers.get("since_ms"),
            until_ms=until_ms,
            by_hand=opened or state is BreakerState.DISABLED,
            failures=numbers.get("failures", 0),
            opens=numbers.get("opens", 0),
            half_opens=numbers.get("half_opens", 0),
            closes=numbers.get("closes", 0),
        )

    def _recorded(self, reply: tuple[str, str, list[str]]) -> None:
        state, epoch, changes = reply
        self.note(state, epoch)
        for changed, reason in zip(changes[::2], changes[1::2], strict=True):
            self._entered(BreakerState(changed), reason)

    def _entered(self, state: BreakerState, reason: str) -> None:
        logger.warning("executor %s: circuit breaker %s: %s", self.executor, state, reason)

    def _reach(self, ask: Callable[[], T]) -> T | None:
        """What Redis answers. None if it is out of reach, or was a moment ago."""
        if time.monotonic() < self._away_until:
            return None
        try:
            answer = ask()
        except redis.RedisError as exc:
            if not self._away_until:
                logger.warning("executor %s: falls back to a local breaker: %s", self.executor, exc)
            self._away_until = time.monotonic() + AWAY_S
            return None
        if self._away_until:
            logger.warning("executor %s: this worker shares the breaker again", self.executor)
            self._away_until = 0.0
            self._local.reset()
        return answer

    def _tell_local(self, report: Report) -> None:
        """Redis went away while the call was under way."""
        admission = self._local.peek()
        if admission is not None:
            self._local.record(admission, report)
