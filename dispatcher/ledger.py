"""The plan ledger: the truth about every plan, in Redis.

Each change is one Lua script on the server's clock; the schema of the keys stands in `lua/prelude.lua`.
A step that holds a stale token changes nothing, and each call may be repeated when its answer was lost.
"""

from __future__ import annotations

import math
import time
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any, cast

import redis
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

from dispatcher.errors import InvalidPlanError, LedgerUnavailableError, PlanConflictError
from dispatcher.record import PlanRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from dispatcher.models import FaultPlan
    from dispatcher.settings import Settings

__all__ = ["Claim", "Ledger", "Step", "WakeUp", "connect"]

WAIT_SLICE_SEC = 2.0
"""A waiting reader looks this often whether the plan is still known."""


@dataclass(frozen=True, slots=True)
class Step:
    """The right to act on a plan, until the lease ends or another step begins."""

    record: PlanRecord
    token: str
    now_ms: int


@dataclass(frozen=True, slots=True)
class WakeUp:
    """What a worker is told: which plan to act on, and how people call it."""

    plan_id: str
    title: str


@dataclass(frozen=True, slots=True)
class Claim:
    """Plans that the caller must wake now, and when to look again."""

    wake_ups: list[WakeUp]
    next_due_ms: int | None
    """Milliseconds until the next plan is due. None while no plan is in the ledger."""


class Ledger:
    """Every method raises `LedgerUnavailableError` where Redis does not answer."""

    def __init__(self, client: redis.Redis, settings: Settings) -> None:
        self._client = client
        self._address = settings.redis_address
        self._prefix = f"{{{settings.key_prefix}}}:"
        self._due = f"{self._prefix}due"
        self._keep_s = settings.result_expires_sec
        self._waker = settings.waker
        self._wait_slice_s = min(WAIT_SLICE_SEC, settings.redis_timeout_sec / 2)
        self._submit = self._script("submit")
        self._begin = self._script("begin")
        self._park = self._script("park")
        self._finish = self._script("finish")
        self._claim_due = self._script("claim_due")

    def submit(
        self,
        plan_id: str,
        plan: FaultPlan,
        *,
        executor: str,
        timeout_ms: int,
        expires_after_ms: int | None = None,
    ) -> bool:
        """Take the plan on. False where it is there already.

        Raises `PlanConflictError` where the id belongs to another plan, `InvalidPlanError` where its
        `start_time` has passed.
        """
        starts_ms = None if plan.start_time is None else math.floor(plan.start_time.timestamp() * 1000)
        with self._redis_errors():
            answer = self._submit(
                keys=[self._plan(plan_id), self._due],
                args=[
                    plan_id,
                    plan.model_dump_json(exclude_none=True),
                    str(plan),
                    executor,
                    timeout_ms,
                    "" if expires_after_ms is None else expires_after_ms,
                    "" if starts_ms is None else starts_ms,
                    _ms(self._waker.patience_sec),
                ],
            )
        if answer == -1:
            raise PlanConflictError(f"plan id {plan_id} belongs to another plan: choose another id")
        if answer == -2:  # noqa: PLR2004 (the script's header says what it means)
            problem = "has passed: choose a later time, or none to start at once"
            raise InvalidPlanError(f"invalid plan: start_time {problem}", [["start_time", problem]])
        return bool(answer)

    def begin(self, plan_id: str, token: str, lease_ms: int) -> Step | None:
        """Take the lease. None where the plan is unknown, over, not due, or in another step's hands."""
        with self._redis_errors():
            answer = self._begin(keys=[self._plan(plan_id), self._due], args=[plan_id, token, lease_ms])
        if answer is None:
            return None
        fields = dict(zip(answer[1::2], answer[2::2], strict=True))
        return Step(PlanRecord.from_fields(plan_id, fields), token, int(answer[0]))

    def park(self, record: PlanRecord, token: str, after_ms: int, *, woken_otherwise: bool = False) -> bool:
        """Give the lease back until the plan is due again, `after_ms` from now. False for a stale token.

        Where another message will wake the plan (`woken_otherwise`), the waker gives that one time.
        """
        with self._redis_errors():
            answer = self._park(
                keys=[self._plan(record.id), self._due],
                args=[
                    record.id,
                    token,
                    after_ms,
                    _ms(self._waker.patience_sec) if woken_otherwise else 0,
                    record.state,
                    record.apply_id or "",
                    record.attempts,
                    record.cause or "",
                ],
            )
        return answer is not None

    def finish(self, record: PlanRecord, token: str, result_key: str, result: str) -> bool:
        """End the plan and store its result, in one. False for a stale token.

        `result_key` and `result` are what Celery's result backend expects.
        """
        with self._redis_errors():
            answer = self._finish(
                keys=[self._plan(record.id), self._due, self._ended(record.id), result_key],
                args=[
                    record.id,
                    token,
                    record.state,
                    record.apply_id or "",
                    record.cause or "",
                    result,
                    self._keep_s,
                ],
            )
        return bool(answer)

    def claim_due(self) -> Claim:
        """The plans that are due now. The caller wakes them; nobody else claims them meanwhile."""
        waker = self._waker
        with self._redis_errors():
            next_due_ms, *pairs = self._claim_due(
                keys=[self._due],
                args=[self._plan(""), waker.batch, _ms(waker.patience_sec), _ms(waker.max_patience_sec)],
            )
        wake_ups = [WakeUp(*pair) for pair in zip(pairs[::2], pairs[1::2], strict=True)]
        return Claim(wake_ups, None if next_due_ms < 0 else next_due_ms)

    def read(self, plan_id: str) -> PlanRecord | None:
        """The plan as it stands. None where nobody knows it."""
        with self._redis_errors():
            fields = cast("dict[str, str]", self._client.hgetall(self._plan(plan_id)))
        return PlanRecord.from_fields(plan_id, fields) if fields else None

    def wait_for_end(self, plan_id: str, timeout_sec: float | None) -> PlanRecord | None:
        """Wait until the plan ends, or `timeout_sec` have passed; the plan as it then stands.

        None where nobody knows the plan, also if it is lost while the caller waits.
        """
        patience = math.inf if timeout_sec is None else timeout_sec
        give_up_at = time.monotonic() + patience
        while (record := self.read(plan_id)) is not None and not record.state.final:
            left = give_up_at - time.monotonic()
            if left <= 0:
                break
            self._block_until_ended(plan_id, min(left, self._wait_slice_s))
        return record

    def result(self, result_key: str) -> str | None:
        """What `finish` stored under `result_key`."""
        with self._redis_errors():
            return cast("str | None", self._client.get(result_key))

    def ping(self) -> None:
        """Raises `LedgerUnavailableError` unless Redis answers."""
        with self._redis_errors():
            self._client.ping()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _block_until_ended(self, plan_id: str, timeout_sec: float) -> None:
        """Returns at the plan's end. The element stays in the list, for others who wait."""
        ended = self._ended(plan_id)
        with self._redis_errors():
            self._client.blmove(ended, ended, cast("int", max(timeout_sec, 0.001)), "LEFT", "LEFT")

    def _plan(self, plan_id: str) -> str:
        return f"{self._prefix}plan:{plan_id}"

    def _ended(self, plan_id: str) -> str:
        return f"{self._prefix}ended:{plan_id}"

    def _script(self, name: str) -> Callable[..., Any]:
        folder = resources.files("dispatcher") / "lua"
        parts: Sequence[str] = [(folder / f"{part}.lua").read_text("utf-8") for part in ("prelude", name)]
        return self._client.register_script("\n".join(parts))

    @contextmanager
    def _redis_errors(self) -> Iterator[None]:
        try:
            yield
        except redis.RedisError as exc:
            told = f"Redis at {self._address} did not answer: {str(exc).rstrip('.')}"
            raise LedgerUnavailableError(f"{told}. Is it running, and is redis_url right?") from exc


def connect(settings: Settings) -> Ledger:
    """A ledger on the Redis that the settings name. Nothing is sent yet."""
    client = redis.Redis.from_url(
        settings.redis_url.get_secret_value(),
        decode_responses=True,
        socket_timeout=settings.redis_timeout_sec,
        socket_connect_timeout=settings.redis_timeout_sec,
        retry=Retry(ExponentialBackoff(cap=0.5, base=0.05), retries=3),
    )
    return Ledger(client, settings)


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
