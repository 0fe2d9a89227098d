"""A plan as the ledger keeps it."""

from __future__ import annotations

import math
import re
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from pydantic import BaseModel, ConfigDict

from dispatcher import errors
from dispatcher.ledger.failures import failed_attempts, with_failure
from dispatcher.ledger.moments import LATEST_MS, moment_of
from dispatcher.models import MAX_TAKES_EFFECT_SEC, ConflictPolicy, FaultPlan, PlanState, PlanStatus
from dispatcher.settings.validation import in_words
from dispatcher.stored_errors import from_json, to_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dispatcher.errors import ExecutorClientError

__all__ = ["TAG", "Order", "PlanRecord", "budget_ms", "read_record"]

TAG = re.compile(r"[A-Za-z0-9._:=-]{1,64}")
"""What a whole tag must match."""

SCHEMA_VERSION = "1"
"""Of the plan's fields. Records of another version are set aside. `lua/prelude.lua` has the same number."""

QUICK_APPLY_MS = 20
"""An apply that was answered within this time has begun its fault now."""

END_STATES: dict[type[Exception], PlanState] = {
    errors.PlanCancelledError: PlanState.CANCELLED,
    errors.PlanExpiredError: PlanState.EXPIRED,
}
"""The final state of a plan that ends with one of these errors."""


STEP_FIELDS = (
    "state",
    "apply_id",
    "applied_ms",
    "sent_ms",
    "takes_effect_ms",
    "began_ms",
    "over_ms",
    "skew_ms",
    "looked_ms",
    "stopping_ms",
    "seen",
    "attempts",
    "started_ms",
    "expires_ms",
    "cause",
    "failure",
    "failures",
    "error",
    "doubtful_ms",
    "not_after_ms",
    "applying_ms",
)
"""What a step may change."""

MOMENTS = (
    "expires_ms",
    "started_ms",
    "sent_ms",
    "applied_ms",
    "began_ms",
    "looked_ms",
    "over_ms",
    "stopping_ms",
    "doubtful_ms",
    "not_after_ms",
    "applying_ms",
    "ended_ms",
    "released_ms",
)
"""The fields that are absent, or a time."""

_of_step = attrgetter(*STEP_FIELDS)


class Order(BaseModel):
    """What was submitted. Its text shows whether two submissions are the same."""

    model_config = ConfigDict(frozen=True)

    plan: FaultPlan
    executor: str = "default"
    timeout_ms: int
    """What the plan may take beyond its fault's own time."""

    conflict_policy: ConflictPolicy = ConflictPolicy.QUEUE

    def to_json(self) -> str:
        """The order as text."""
        return self.model_dump_json(exclude_none=True, exclude_defaults=True)


class PlanRecord(NamedTuple):
    """One plan's row in the ledger. Times are milliseconds since 1970 on the Redis server's clock."""

    id: str
    plan: FaultPlan
    executor: str
    timeout_ms: int
    submitted_ms: int
    due_ms: int
    state: PlanState = PlanState.QUEUED
    attempts: int = 0
    retries: int = 0
    """How many Celery messages were sent for the plan after the first one."""

    expires_ms: int | None = None
    started_ms: int | None = None
    applied_ms: int | None = None
    ended_ms: int | None = None
    released_ms: int | None = None
    """Until when it keeps its target, if it ended while its fault might be alive."""

    apply_id: str | None = None
    cause: str | None = None
    """Why it waits, or why it ended."""

    failure: ExecutorClientError | None = None
    """Why the last attempt failed, if there will be another one."""

    failures: str = ""
    """Its failed attempts. See `failed_attempts`."""

    cancelled: str | None = None
    """Why it was cancelled, once it was."""

    error: ExecutorClientError | None = None
    """What it will end with, once its fault is stopped."""

    doubtful_ms: int | None = None
    """When the last apply without an answer may have reached the Executor."""

    not_after_ms: int | None = None
    """Until when that apply may begin its fault, on an Executor that keeps `Not-After`."""

    applying_ms: int | None = None
    """When an apply began that must not be repeated."""

    sent_ms: int | None = None
    """When the first apply that may have begun the fault was sent. None if its answer came at once."""

    takes_effect_ms: int = 0
    """How long after its apply the fault is in force, and after its removal gone."""

    began_ms: int | None = None
    """When the fault began to be in force, as the Executor says."""

    over_ms: int | None = None
    """When the fault ended, as the Executor says."""

    skew_ms: int = 0
    """By how much the window that the Executor's status says was moved into place: its clock is wrong."""

    looked_ms: int | None = None
    """When its status was read last."""

    stopping_ms: int | None = None
    """Since when its fault is being stopped."""

    overlapped: bool = False
    """Whether another plan's fault was on its target meanwhile."""

    twin: str | None = None
    """Another plan whose fault has the same id, because the Executor repeats ids."""

    doubt: str | None = None
    """Why it is unknown whether its fault is over, if the plan has ended all the same."""

    seen: str = ""
    """What an observer has seen of its target so far, in the observer's words."""

    in_the_way: str | None = None
    """The plan that holds the target, for a step of a plan that does not wait for it."""

    traceparent: str = ""
    """The span that submitted it (W3C Trace Context). Empty if there was none."""

    batch: str | None = None
    """The batch that it was submitted in, the first one if there are several."""

    tags: tuple[str, ...] = ()

    @classmethod
    def from_fields(cls, plan_id: str, fields: Mapping[str, str], in_the_way: str = "") -> Self:
        """The record in a ledger hash."""

        if fields.get("v") != SCHEMA_VERSION:
            raise ValueError(f"its schema version is {fields.get('v')}, and {SCHEMA_VERSION} is known here")
        order = Order.model_validate_json(fields["order"])
        moments = {name: int(fields[name]) for name in MOMENTS if name in fields}
        return cls(
            id=plan_id,
            plan=order.plan,
            executor=order.executor,
            timeout_ms=order.timeout_ms,
            submitted_ms=int(fields["submitted_ms"]),
            due_ms=int(fields["due_ms"]),
            state=PlanState(fields["state"]),
            attempts=int(fields.get("attempts", 0)),
            retries=int(fields.get("retries", 0)),
            apply_id=fields.get("apply_id"),
            cause=fields.get("cause") or None,
            failure=from_json(fields["failure"]) if "failure" in fields else None,
            failures=fields.get("failures", ""),
            cancelled=fields.get("cancelled"),
            error=from_json(fields["error"]) if "error" in fields else None,
            takes_effect_ms=int(fields.get("takes_effect_ms", 0)),
            skew_ms=int(fields.get("skew_ms", 0)),
            overlapped="overlapped" in fields,
            twin=fields.get("twin"),
            doubt=fields.get("doubt"),
            seen=fields.get("seen", ""),
            in_the_way=in_the_way or None,
            traceparent=fields.get("traceparent", ""),
            batch=fields["batch"].partition(" ")[0] if "batch" in fields else None,
            tags=tuple(fields["tags"].split()) if "tags" in fields else (),
            **moments,
        )

    @property
    def deadline_ms(self) -> int | None:
        """When the plan is given up: its fault's own time and `timeout_ms` after its first step."""
        if self.started_ms is None:
            return None
        return self.started_ms + budget_ms(self.plan, self.timeout_ms) + 2 * self.takes_effect_ms

    @property
    def fault_ends_ms(self) -> int | None:
        """When the Executor itself has ended the fault, and the requests that it holds are answered."""
        begins_ms = self.doubtful_ms if self.applied_ms is None else self.applied_ms
        if begins_ms is None:
            return None
        return begins_ms + budget_ms(self.sent_plan, 0) + self.takes_effect_ms

    @property
    def sent_plan(self) -> FaultPlan:
        """The plan as the Executor gets it: longer by the time that its fault takes to be in force."""
        if not self.takes_effect_ms:
            return self.plan
        longer_s = math.ceil(self.takes_effect_ms / 1000)
        return self.plan.model_copy(update={"duration_seconds": self.plan.duration_seconds + longer_s})

    @property
    def in_force_ms(self) -> int | None:
        """When the fault begins to be in force: as the Executor says, or as planned."""
        if self.began_ms is not None or self.applied_ms is None:
            return self.began_ms
        return self.applied_ms + self.takes_effect_ms

    @property
    def planned_end_ms(self) -> int | None:
        """When the fault has been in force for its duration, if it ends as planned."""
        begins_ms = self.in_force_ms
        return None if begins_ms is None else begins_ms + self.plan.duration_seconds * 1000

    @property
    def surely_until_ms(self) -> int | None:
        """Until when the fault is surely in force, if it ends as planned.

        Unless the Executor says when it began, that was when its apply was sent, at the earliest.
        """
        if self.began_ms is not None or self.sent_ms is None:
            return self.planned_end_ms
        return self.sent_ms + self.takes_effect_ms + self.plan.duration_seconds * 1000

    def alive_ms(self, now_ms: int) -> int:
        """How much longer the fault may be alive if it is not stopped."""
        return max(0, (self.fault_ends_ms or now_ms) - now_ms)

    def gone_in_ms(self, now_ms: int) -> int:
        """How long the removal of a fault that is over still takes to arrive at the target."""
        if not self.applied_for_all_we_know:
            return 0
        if self.state is not PlanState.OBSERVED or self.looked_ms is None:
            return self.takes_effect_ms  # it was stopped or found to be over just now
        return max(0, self.looked_ms + self.takes_effect_ms - now_ms)

    @property
    def why(self) -> str | None:
        """Why a plan does not go on, or has ended, for people."""
        return self.cause or (None if self.failure is None else str(self.failure))

    @property
    def ends(self) -> bool:
        """Whether it only remains to stop its fault."""
        return self.error is not None or self.cancelled is not None or self.state.final

    @property
    def applied_for_all_we_know(self) -> bool:
        """Whether its fault may be on the Executor."""
        return self.apply_id is not None or self.doubtful

    @property
    def doubtful(self) -> bool:
        """Whether it is unknown if its fault was applied."""
        return self.doubtful_ms is not None

    def changes_since(self, before: Self) -> dict[str, str | int]:
        """The fields that a step has changed, as in the ledger's hash. Empty: absent."""
        pairs = zip(STEP_FIELDS, _of_step(self), _of_step(before), strict=True)
        return {
            name: to_json(value) if isinstance(value, errors.ExecutorClientError) else value or ""
            for name, value, earlier in pairs
            if value is not earlier and value != earlier
        }

    def applied(self, apply_id: str, now_ms: int) -> Self:
        """The record once the Executor has accepted the fault."""
        quick = self.sent_ms is not None and now_ms - self.sent_ms <= QUICK_APPLY_MS
        return self._went_well(
            state=PlanState.RUNNING,
            apply_id=apply_id,
            applied_ms=now_ms,
            sent_ms=None if quick else self.sent_ms,
            doubtful_ms=None,
            not_after_ms=None,
            applying_ms=None,
        )

    def sampled(self, seen: str) -> Self:
        """The record once an observer has looked at the target."""
        return self._replace(seen=seen)

    def still_running(self) -> Self:
        """The record once the Executor has said that the fault is still there."""
        return self._went_well()

    def looked_at(self, began_ms: int | None, over_ms: int | None, now_ms: int) -> Self:
        """The record once the Executor has said when the fault began and ended, if it says so."""
        return self._went_well(
            began_ms=began_ms or self.began_ms, over_ms=over_ms or self.over_ms, looked_ms=now_ms
        )

    def completed(self) -> Self:
        """The record once the Executor has said that the fault is over."""
        return self._went_well(state=PlanState.COMPLETED)

    def observed(self) -> Self:
        """The record once the observation is in."""
        return self._went_well(state=PlanState.OBSERVED)

    def failed_once_more(self, failure: ExecutorClientError, now_ms: int) -> Self:
        """The record after a failed call that will be tried again."""
        failures = with_failure(self.failures, now_ms, failure.message)
        return self._replace(attempts=self.attempts + 1, failure=failure, failures=failures, cause=None)

    def in_doubt(self, now_ms: int, not_after_ms: int | None = None) -> Self:
        """The record once an apply without an answer may have arrived."""
        return self._replace(
            doubtful_ms=now_ms, not_after_ms=not_after_ms, applying_ms=self.applying_ms or now_ms
        )

    def held_back(self, cause: str) -> Self:
        """The record of a plan in the middle, whose next call must wait."""
        return self._replace(cause=cause)

    def put_off(self, cause: str, expires_ms: int) -> Self:
        """The record of a plan that has not begun after all, and waits until `expires_ms` at most."""
        if self.expires_ms is not None:
            expires_ms = min(self.expires_ms, expires_ms)
        return self._replace(started_ms=None, attempts=0, failure=None, cause=cause, expires_ms=expires_ms)

    def ending(self, error: ExecutorClientError, now_ms: int) -> Self:
        """The record once it is clear what the plan ends with, but its fault is not yet stopped."""
        if self.stopping_ms is not None:
            return self._replace(error=error)
        return self._replace(error=error, stopping_ms=now_ms, attempts=0)

    def ended(self, error: Exception) -> Self:
        """The record once the plan has ended without an observation."""
        state = END_STATES.get(type(error), PlanState.FAILED)
        return self._replace(state=state, cause=str(error), failure=None)

    def status(self) -> PlanStatus:
        """The record as the Recommender sees it."""
        return PlanStatus(
            id=self.id,
            plan=self.plan,
            executor=self.executor,
            state=self.state,
            apply_id=self.apply_id,
            attempts=self.attempts,
            cause=self.why,
            submitted_at=moment_of(self.submitted_ms),
            started_at=moment_of(self.started_ms),
            applied_at=moment_of(self.applied_ms),
            in_force_at=moment_of(self.in_force_ms),
            ends_at=None if self.applied_ms is None else moment_of(self.applied_ms + budget_ms(self.plan, 0)),
            over_at=moment_of(self.over_ms),
            stopping_at=moment_of(self.stopping_ms),
            next_step_at=None if self.state.final else moment_of(self.due_ms),
            ended_at=moment_of(self.ended_ms),
            failures=failed_attempts(self.failures),
            batch=self.batch,
            tags=self.tags,
        )

    def _went_well(self, **changes: Any) -> Self:
        return self._replace(attempts=0, failure=None, cause=None, **changes)


def read_record(plan_id: str, fields: Mapping[str, str]) -> PlanRecord | errors.RecordUnreadableError:
    """The record in a ledger hash, or why this version cannot read it, and what is known of its fault."""
    try:
        return _checked(PlanRecord.from_fields(plan_id, fields))
    except (errors.ExecutorClientError, LookupError, TypeError, ValueError) as exc:
        why = in_words(exc) if isinstance(exc, ValueError) else f"{type(exc).__name__} {exc}"
    where = (
        "" if "target" not in fields else f" (target {fields['target']}, apply id {fields.get('apply_id')})"
    )
    message = f"plan {plan_id}{where} cannot be read: {why}"
    return errors.RecordUnreadableError(message if message.isprintable() else ascii(message), plan_id)


def _checked(record: PlanRecord) -> PlanRecord:
    """Raises `ValueError` for a time that the ledger does not write."""
    for name in ("submitted_ms", "due_ms", *MOMENTS):
        ms = getattr(record, name)
        if ms is not None and not 0 <= ms <= LATEST_MS:
            raise ValueError(f"{name} is {ms}, which is not a time")
    if not 0 <= record.takes_effect_ms <= MAX_TAKES_EFFECT_SEC * 1000:
        raise ValueError(f"takes_effect_ms is {record.takes_effect_ms}, which is too long")
    return record


def budget_ms(plan: FaultPlan, timeout_ms: int) -> int:
    """What a plan may take from its first step to its end: its fault's own time and `timeout_ms`.

    The last requests that the fault hits are held for as long as it delays them.
    """
    held_ms = plan.start_delay_ms + round((plan.delay_seconds or 0) * 1000)
    return held_ms + plan.duration_seconds * 1000 + timeout_ms
