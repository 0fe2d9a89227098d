"""What a Recommender hands over and gets back: frozen values, validated when they are made."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Self, Unpack

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from dispatcher.capabilities import Capability
from dispatcher.errors import InvalidPlanError
from dispatcher.headers import RequestHeaders, lines_of
from dispatcher.limits import no_bare_number
from dispatcher.points import PercentageIs, PointOptions, read_point
from dispatcher.protocols import GRPC_STATUSES, GrpcStatus, Protocol
from dispatcher.settings.validation import problems_of

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "ActiveFault",
    "ConflictPolicy",
    "FailedAttempt",
    "FaultPlan",
    "FaultType",
    "Health",
    "PlanState",
    "PlanStatus",
]

logger = logging.getLogger(__name__)

MAX_DURATION_SECONDS = 86_400
MAX_TAKES_EFFECT_SEC = 600
END_OF_TIME = 3000
"""The year before which a plan begins. Sums from there fit into every clock."""

SERVICE_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")
API_PATH = re.compile(r"/[!\"$->@-~]{0,2047}")  # printable ASCII except the space, # and ?


class FaultType(StrEnum):
    """What a fault does to the requests that it hits."""

    DELAY = "delay"
    ABORT = "abort"


def _number(value: object) -> object:
    """Let numbers of any library through, and nothing that merely looks like one."""
    if isinstance(value, str | bytes) or type(value).__name__ in {"bool", "bool_"}:  # bool_: NumPy's
        raise ValueError(f"must be a number, not {type(value).__name__}")
    return value


def _rfc3339(value: object) -> object:
    """A bare number, also as text, would be read as seconds since 1970, which is never meant."""
    if not isinstance(value, str | datetime):
        raise ValueError("must be a date and time as in RFC 3339, such as 2030-01-31T12:00:00Z")
    return no_bare_number(value)


def _not_too_far(moment: datetime) -> datetime:
    if moment.year >= END_OF_TIME:
        raise ValueError(f"must be before the year {END_OF_TIME}")
    return moment


def _service_name(value: object) -> object:
    if not (isinstance(value, str) and SERVICE_NAME.fullmatch(value)):
        raise ValueError("must be a name of letters, digits, '.', '_' and '-', at most 253 long")
    return value


def _path(value: object) -> object:
    if not (isinstance(value, str) and API_PATH.fullmatch(value)):
        raise ValueError("must be a path such as /api/v1/pay: no query, no spaces, at most 2048 long")
    return value


Int = Annotated[int, BeforeValidator(_number)]
Float = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False)]
Moment = Annotated[AwareDatetime, BeforeValidator(_rfc3339), AfterValidator(_not_too_far)]


class FaultPlan(BaseModel, frozen=True, extra="forbid"):
    """One fault to inject: where, what, into how many requests and for how long (specification 5.1).

    Raises `InvalidPlanError`, which names every wrong field, however the plan is made.
    """

    service: Annotated[str, BeforeValidator(_service_name)]
    """The service that is hit, by the name that the Executor knows it by."""

    api: Annotated[str, BeforeValidator(_path)]
    """Path of the API that is hit, from the leading slash on, without a query."""

    fault_type: FaultType

    protocol: Protocol = Protocol.HTTP
    """`http` (the default): any request is hit. `grpc`: gRPC calls only, and an abort has a gRPC status."""

    headers: RequestHeaders | None = None
    """Only requests with all of these headers are hit and counted, each with exactly this value. All requests
    if absent. At most 8; names in lower case; no secrets."""

    percentage: Int = Field(ge=0, le=100)
    """Share of the requests that are hit, in percent. 0 injects nothing and observes a baseline."""

    duration_seconds: Int = Field(ge=1, le=MAX_DURATION_SECONDS)
    """How long the fault lasts, in seconds. Whole ones, as in the Executor's contract."""

    delay_seconds: Float | None = Field(default=None, ge=0.1, le=30, validate_default=True)
    """How long each affected request is held, in seconds. Delay faults only."""

    abort_http_status: Int | None = Field(default=None, ge=400, le=599, validate_default=True)
    """The HTTP status that each affected request is answered with. Abort faults only, of protocol `http`."""

    grpc_status: GrpcStatus | None = None
    """The gRPC status that each affected call is answered with: a number, or a name such as `UNAVAILABLE`.
    Abort faults only, of protocol `grpc`."""

    start_delay_ms: Int = Field(default=0, ge=0, le=60_000)
    """How long each affected request is held before the fault acts on it, in milliseconds."""

    start_time: Moment | None = None
    """When the fault should begin (RFC 3339). At once if absent."""

    takes_effect_sec: Float | None = Field(default=None, ge=0, le=MAX_TAKES_EFFECT_SEC)
    """How long after its apply the fault is in force, in seconds. The Executor's setting if absent."""

    min_requests: Int | None = Field(default=None, ge=0)
    """Fewer requests than this make no observation. The Executor's setting if absent."""

    @field_validator("delay_seconds", "abort_http_status", "grpc_status", mode="after")
    @classmethod
    def _belongs_to_the_fault(cls, value: float | None, info: ValidationInfo) -> float | None:
        owner, protocol = OWNERS[str(info.field_name)]
        fault_type, protocol_here = info.data.get("fault_type"), info.data.get("protocol")
        if None in {fault_type, protocol_here}:
            return value  # which is wrong itself
        of_protocol = (
            f" of protocol {protocol}" if protocol and Protocol.GRPC in {protocol, protocol_here} else ""
        )
        fits = fault_type is owner and protocol_here in {protocol, protocol or protocol_here}
        if fits and value is None:
            raise ValueError(f"is required for {owner} faults{of_protocol}")
        if not fits and value is not None:
            raise ValueError(f"belongs to {owner} faults{of_protocol} only")
        return value

    @model_validator(mode="wrap")
    @classmethod
    def _name_every_wrong_field(cls, value: object, handler: Callable[[object], Self]) -> Self:
        try:
            plan = handler(value)
        except ValidationError as exc:
            problems = problems_of(exc)
        else:
            grpc_abort = plan.protocol is Protocol.GRPC and plan.fault_type is FaultType.ABORT
            if not grpc_abort or plan.grpc_status is not None:
                return plan
            problems = [["grpc_status", "is required for abort faults of protocol grpc"]]
        # Not from pydantic's error: a traceback would show both, and a value may be a secret.
        raise InvalidPlanError(f"invalid plan: {_sentence(problems)}", problems)

    @classmethod
    def model_validate_json(cls, json_data: str | bytes | bytearray, **options: object) -> Self:
        """See pydantic. Raises `InvalidPlanError` for what is not JSON, too, and shows nothing of it."""
        try:
            return super().model_validate_json(json_data, **options)  # type: ignore[arg-type]
        except ValidationError as exc:
            problems = problems_of(exc)
        raise InvalidPlanError(f"invalid plan: {_sentence(problems)}", problems)

    def starting_at(self, start_time: datetime | str | None) -> Self:
        """The same plan with another `start_time` (RFC 3339). None changes nothing.

        Raises `InvalidPlanError`.
        """
        if start_time is None:
            return self
        return self.model_validate(self.model_dump() | {"start_time": start_time})

    def with_headers(self, headers: Mapping[str, str] | None) -> Self:
        """The same plan for requests that have these headers, too. None changes nothing.

        Raises `InvalidPlanError`, also for a header of which the plan has another value.
        """
        if not headers:
            return self
        given: object = headers
        if not isinstance(given, Mapping):
            return self.model_validate(self.model_dump() | {"headers": given})  # which says what is wrong
        own = self.headers or {}
        twice = sorted(name for name in own.keys() & headers.keys() if own[name] != headers[name])
        if twice:
            problem = f"has another value of {', '.join(twice)} already"
            raise InvalidPlanError(f"invalid plan: headers {problem}", [["headers", problem]])
        return self.model_validate(self.model_dump() | {"headers": {**own, **headers}})

    @property
    def needs(self) -> tuple[Capability, ...]:
        """What its Executor must be able to do beyond the contract's basics."""
        if self.headers is None and self.protocol is Protocol.HTTP:  # most often, at each apply
            return ()
        asked = {
            Capability.HEADERS: self.headers is not None,
            Capability.GRPC_STATUS: self.protocol is Protocol.GRPC,
        }
        return tuple(capability for capability, needed in asked.items() if needed)

    @classmethod
    def from_point(
        cls,
        point: Mapping[str, object],
        *,
        percentage_is: PercentageIs = "percent",
        duration_seconds: int | None = None,
        service: str | None = None,
        api: str | None = None,
    ) -> Self:
        """The plan in an optimiser's point, which may set a delay and a status at once.

        Of these it takes what belongs to the point's `fault_type`. Without a type, only one of the two may be
        set: None, 0 and NaN set nothing. Keys are those of a plan, `delay_ms`, `delay` (in s) and `status`.
        `percentage_is` says whether the point's percentage is 0 to 100 (`percent`) or 0 to 1 (`share`). It is
        rounded to whole percent, and to 1 at least unless it is 0. Other arguments win over the point.

        `explain_point` returns what was made of the point, and the log has it at level INFO. Raises
        `InvalidPlanError`, also for a key that no point has.
        """
        reading = read_point(
            point, percentage_is=percentage_is, duration_seconds=duration_seconds, service=service, api=api
        )
        plan = cls.model_validate(reading.fields)
        logger.info("%s", "; ".join([f"a point became the plan {plan}", *reading.notes]))
        return plan

    @classmethod
    def explain_point(cls, point: Mapping[str, object], **options: Unpack[PointOptions]) -> list[str]:
        """What `from_point`, with the same arguments, converts, infers and leaves out: a sentence each.

        Empty if it takes everything as it is. Raises `InvalidPlanError` if it would.
        """
        reading = read_point(point, **options)
        cls.model_validate(reading.fields)
        return reading.notes

    def __str__(self) -> str:
        """The plan in one line, for people."""
        late = f" after {self.start_delay_ms} ms" if self.start_delay_ms else ""
        where = f"{self.service} {self.api}"
        only = f" with {', '.join(lines_of(self.headers))}" if self.headers else ""
        return f"{self.effect}{late}, {self.percentage} % of {where}{only}, {self.duration_seconds} s"

    @property
    def effect(self) -> str:
        """What happens to a request that is hit: `delay 2.5 s`, `abort 503`, `abort gRPC UNAVAILABLE`."""
        if self.fault_type is FaultType.DELAY:
            return f"delay {self.delay_seconds:g} s"
        if self.grpc_status is not None:
            return f"abort gRPC {GRPC_STATUSES[self.grpc_status]}"
        return f"abort {self.abort_http_status}"


class ConflictPolicy(StrEnum):
    """What a plan does whose target has another plan's fault: both observations would be spoiled."""

    QUEUE = "queue"
    """Wait until it is its turn. First come, first served."""

    REJECT = "reject"
    """End with `PlanConflictError`."""

    ALLOW = "allow"
    """Go ahead all the same."""


class PlanState(StrEnum):
    """State of a plan. The last four are final."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    OBSERVED = "observed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"

    @property
    def final(self) -> bool:
        """True once nothing more will happen to the plan."""
        return self in {PlanState.OBSERVED, PlanState.FAILED, PlanState.CANCELLED, PlanState.EXPIRED}


class FailedAttempt(BaseModel, frozen=True):
    """A call to the Executor that failed, and was worth another attempt or ended the plan."""

    at: AwareDatetime
    """When it failed."""

    attempt: int
    """Which of the plan's failed attempts it was, from 1 on."""

    cause: str
    """What the Executor answered, or why it did not answer. Cut to 300 characters."""


class PlanStatus(BaseModel, frozen=True):
    """A plan as the ledger sees it. All times are the Redis server's."""

    id: str
    plan: FaultPlan
    executor: str
    """Name of the Executor, as in the configuration."""

    state: PlanState
    apply_id: str | None
    """The Executor's id of the fault, once it is applied."""

    attempts: int
    """Calls to the Executor that failed since the last one that succeeded."""

    cause: str | None
    """Why the last call failed, or why the plan did."""

    submitted_at: AwareDatetime
    started_at: AwareDatetime | None = None
    """When a worker first took it."""

    applied_at: AwareDatetime | None
    in_force_at: AwareDatetime | None = None
    """When its fault began to be in force: as the Executor says, otherwise as planned."""

    ends_at: AwareDatetime | None
    """When its fault should be over. None before it is applied."""

    over_at: AwareDatetime | None = None
    """When its fault ended, as the Executor says. None if it did not say so before the plan's last step."""

    stopping_at: AwareDatetime | None = None
    """Since when its fault is being stopped."""

    next_step_at: AwareDatetime | None
    """No worker acts on the plan before this. None once it has ended."""

    ended_at: AwareDatetime | None
    batch: str | None = None
    """Id of the batch that it was submitted in, the first one if there are several."""

    tags: tuple[str, ...] = ()
    """The tags that it was submitted with."""

    failures: tuple[FailedAttempt, ...] = ()
    """The last 20 attempts that failed, the oldest first."""


class ActiveFault(BaseModel, frozen=True):
    """A fault in flight, or one whose plan has ended in doubt."""

    plan_id: str
    apply_id: str | None
    """The Executor's id of the fault. None if its apply had no answer."""

    executor: str
    service: str
    api: str
    age_seconds: float
    """How long ago it was applied."""

    ends_at: AwareDatetime
    """When it should be over."""

    doubt: str | None = None
    """Why it is unknown whether it is over. None while its plan is in flight."""


class Health(BaseModel, frozen=True):
    """What a check of an Executor has found."""

    healthy: bool
    cause: str = ""
    """Why it is not."""

    checked_at: AwareDatetime


OWNERS: dict[str, tuple[FaultType, Protocol | None]] = {
    "delay_seconds": (FaultType.DELAY, None),
    "abort_http_status": (FaultType.ABORT, Protocol.HTTP),
    "grpc_status": (FaultType.ABORT, Protocol.GRPC),
}
"""Which type of fault a field belongs to, and of which protocol. None: of any."""


def _sentence(problems: list[list[str]]) -> str:
    return "; ".join(f"{field} {problem}" for field, problem in problems)
