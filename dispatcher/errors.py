"""What can go wrong with a plan.

    ExecutorClientError
    ├── InvalidPlanError            the plan breaks a rule; nothing was sent
    ├── InvalidSettingsError        the configuration breaks a rule; nothing was started
    ├── RecordUnreadableError       what is stored of a plan cannot be read by this version
    ├── PlanUnknownError            no plan has this id, or its record is gone
    ├── PartlySubmittedError        a part of a batch was submitted before something failed
    ├── ExtraMissingError           a library of an extra is not installed  (also an ImportError)
    ├── PlanConflictError           another plan has the id, or the target
    ├── PlanCancelledError          a person cancelled the plan, or halted the dispatcher
    ├── DispatchHaltedError         the dispatcher is halted and refuses plans
    ├── DispatcherClosedError       the Dispatcher was closed while a call waited; plans go on
    ├── TimeoutError                the specification's; also Python's TimeoutError
    │   ├── PlanExpiredError        the plan did not begin in time; it was never applied
    │   ├── ResultTimeoutError      the caller stopped waiting; the plan goes on
    │   ├── ExecutorTimeoutError    the Executor never answered
    │   └── MetricsNotReadyError    the Executor has no metrics of the fault yet
    ├── ConnectionError             the specification's; also Python's ConnectionError
    │   ├── LedgerUnavailableError  Redis did not answer, or not for now
    │   │   └── LedgerRefusedError  Redis refused a command, and will again
    │   └── ExecutorConnectionError no connection to the Executor
    │       └── CircuitOpenError    the circuit breaker lets no call through; nothing was sent
    ├── CapabilityMissingError      the Executor cannot do what the plan asks for; no apply was sent
    ├── ExecutorRejectedError       the Executor refused the request      (4xx)
    ├── ExecutorServerError         the Executor is overloaded or broken  (408, 429, 5xx)
    ├── ExecutorProtocolError       the answer is not what the contract says
    ├── FaultFailedError            the Executor says that the fault failed
    ├── FaultLostError              the Executor no longer knows the fault
    ├── FaultUnobservedError        too few requests met the fault, or an observer could not see it
    └── FaultInDoubtError           it is unknown whether the fault is over; its target stays reserved

Every error travels from a worker to the Recommender through the result backend, which keeps an
exception's positional arguments and nothing else. Constructors therefore take positional arguments
only, all of them plain JSON values.
"""

from __future__ import annotations

import builtins
from typing import TYPE_CHECKING, ClassVar, Self, cast

if TYPE_CHECKING:
    from dispatcher.plan_batch import PlanBatch

__all__ = [
    "CapabilityMissingError",
    "CircuitOpenError",
    "DispatchHaltedError",
    "DispatcherClosedError",
    "ExecutorClientError",
    "ExecutorConnectionError",
    "ExecutorProtocolError",
    "ExecutorRejectedError",
    "ExecutorServerError",
    "ExecutorTimeoutError",
    "ExtraMissingError",
    "FaultFailedError",
    "FaultInDoubtError",
    "FaultLostError",
    "FaultUnobservedError",
    "InvalidPlanError",
    "InvalidSettingsError",
    "LedgerRefusedError",
    "LedgerUnavailableError",
    "MetricsNotReadyError",
    "PartlySubmittedError",
    "PlanCancelledError",
    "PlanConflictError",
    "PlanExpiredError",
    "PlanUnknownError",
    "RecordUnreadableError",
    "ResultTimeoutError",
]


CLOSED = "the Dispatcher was closed during the call; plans that were submitted go on, ask again by their ids"
"""What a `DispatcherClosedError` says."""


class ExecutorClientError(Exception):
    """Base of all errors here (specification 5.1). Raised itself only for a defect in a worker."""

    advice: ClassVar[str] = "Report the defect, with the lines of the worker's log that name the plan."
    """What to do about it."""

    exit_code: ClassVar[int] = 1
    """What the command line exits with when this error ends it."""

    retry_safe: ClassVar[bool] = False
    """True if the same request may succeed later and repeating it does no harm."""

    def __init__(self, message: str = "", /, *details: object) -> None:
        super().__init__(message, *details)

    def saying(self, message: str) -> Self:
        """The same error in other words."""
        return type(self)(message, *self.args[1:])

    @property
    def message(self) -> str:
        """One sentence: what happened, to what, and what to do."""
        return str(self.args[0])

    def __str__(self) -> str:
        return self.message


class TimeoutError(ExecutorClientError, builtins.TimeoutError):  # noqa: A001 (the specification's name)
    """Base of errors that mean that time ran out (specification 5.1). Never raised itself."""


class ConnectionError(ExecutorClientError, builtins.ConnectionError):  # noqa: A001 (the specification's name)
    """Base of errors that mean that a server is out of reach (specification 5.1). Never raised itself."""


class _RuleError(ExecutorClientError):
    """Input that breaks rules, field by field."""

    advice = "Correct what `problems` names."
    exit_code = 2

    def __init__(self, message: str = "", problems: list[list[str]] | None = None, /) -> None:
        super().__init__(message, problems or [])

    @property
    def problems(self) -> list[tuple[str, str]]:
        """Each wrong field and what is wrong with it: `[("percentage", "must be at most 100")]`."""
        return [(field, problem) for field, problem in self.args[1]]

    @property
    def lines(self) -> list[str]:
        """One line for each wrong field, for people."""
        return [f"{field}: {problem}" for field, problem in self.problems] or [self.message]


class InvalidPlanError(_RuleError):
    """The plan, or an option of its submission, breaks a rule. Nothing was sent."""


class InvalidSettingsError(_RuleError):
    """The configuration, or an argument, breaks a rule. Nothing was started."""

    def within(self, section: str) -> Self:
        """The same of one section of the settings, `executors.default` for example."""
        problems = [[f"{section}.{field}", problem] for field, problem in self.problems]
        message = "; ".join(" ".join(each) for each in problems)
        return type(self)(f"invalid settings: {message}", problems)


class LedgerUnavailableError(ConnectionError):
    """Redis did not answer, or refused a command for now. The call may have taken effect."""

    advice = "Do what the message says about Redis, then repeat the call with the same plan id."
    exit_code = 3
    retry_safe = True


class LedgerRefusedError(LedgerUnavailableError):
    """Redis refused a command, and will again: a wrong password, no permission, a key of another type."""

    advice = "See the message: are `redis_url` and `key_prefix` right? If so, report the defect."
    exit_code = 18
    retry_safe = False


class RecordUnreadableError(ExecutorClientError):
    """What is stored of a plan cannot be read here: another version wrote it, or another program."""

    advice = "Ask with the version that submitted the plan, or cancel it, and submit it as a new plan."
    exit_code = 19

    def __init__(self, message: str = "", plan_id: str = "", /) -> None:
        super().__init__(message, plan_id)

    @property
    def plan_id(self) -> str:
        """Id of the plan."""
        return str(self.args[1])


class PartlySubmittedError(ExecutorClientError):
    """A part of a batch was submitted. Then Redis, a plan or the iterable failed: see `__cause__`."""

    advice = "Wait for `submitted`, or cancel it. With `plan_ids`, the whole batch may be submitted again."
    exit_code = 24

    def __init__(
        self,
        message: str = "",
        batch_id: str = "",
        plan_ids: list[str] | None = None,
        uncertain: list[str] | None = None,
        /,
        *,
        submitted: object = None,
    ) -> None:
        super().__init__(message, batch_id, plan_ids or [], uncertain or [])
        self._submitted = cast("PlanBatch | None", submitted)

    @property
    def batch_id(self) -> str:
        """Id of the batch, for `Dispatcher.batch`."""
        return str(self.args[1])

    @property
    def plan_ids(self) -> list[str]:
        """Ids of the plans that were submitted, in their order."""
        return list(self.args[2])

    @property
    def uncertain(self) -> list[str]:
        """Ids of the plans of which it is unknown, because Redis did not answer."""
        return list(self.args[3])

    @property
    def submitted(self) -> PlanBatch | list[str]:
        """The `PlanBatch` of the plans that were submitted. Once the error was pickled: their ids."""
        return self.plan_ids if self._submitted is None else self._submitted

    def __reduce__(self) -> tuple[type[Self], tuple[object, ...]]:
        return type(self), self.args


class ExtraMissingError(ExecutorClientError, ImportError):
    """A library that only an extra installs is missing, pyarrow for example."""

    advice = "Install what the message names, with pip, then repeat the call."
    exit_code = 25


class PlanUnknownError(ExecutorClientError):
    """No plan or batch has this id, or its record or result has expired, was forgotten or lost."""

    advice = "Check the id. If its record or result has gone (`result_expires_sec`), submit the plan again."
    exit_code = 4


class PlanConflictError(ExecutorClientError):
    """Another plan has the id, or the target."""

    advice = "Choose another id, or wait for the plan in `holder` (`conflict_policy` `queue` does)."
    exit_code = 5

    def __init__(self, message: str = "", holder: str = "", /) -> None:
        super().__init__(message, holder)

    @property
    def holder(self) -> str:
        """Id of the plan that has the id or the target."""
        return str(self.args[1])


class PlanCancelledError(ExecutorClientError):
    """A person cancelled the plan, or halted the dispatcher. The fault is over, or the message says when."""

    advice = "Submit it as a new plan if it is still wanted."
    exit_code = 8


class DispatchHaltedError(ExecutorClientError):
    """The dispatcher is halted and refuses plans."""

    advice = "Settle what the message gives as the reason, `dispatcher resume`, and submit the plan again."
    exit_code = 9
    retry_safe = True


class DispatcherClosedError(ExecutorClientError):
    """The Dispatcher was closed while a call waited for Redis. Plans that were submitted go on."""

    advice = "Ask again by the plan's id. Close the Dispatcher after the last call has returned."
    exit_code = 26
    retry_safe = True


class PlanExpiredError(TimeoutError):
    """The plan did not begin in time: no worker, no free target or no Executor. It was never applied."""

    advice = "Start workers, or allow a longer `expires`. Then submit it as a new plan."
    exit_code = 6
    retry_safe = True


class ResultTimeoutError(TimeoutError):
    """The caller stopped waiting. The plan goes on."""

    advice = "Ask again with the same id, or cancel the plan. `dispatcher doctor` says whether workers run."
    exit_code = 7
    retry_safe = True


class ExecutorTimeoutError(TimeoutError):
    """The Executor did not answer in time. If the fault may still be in force, the message says so."""

    advice = "Check whether it is overloaded, or allow more time (docs/timeouts.md). Submit it as a new plan."
    exit_code = 10
    retry_safe = True


class ExecutorConnectionError(ConnectionError):
    """No connection to the Executor."""

    advice = "See `reason`: does it run, are `base_url` and `ca_file` right? Then submit it as a new plan."
    exit_code = 11
    retry_safe = True

    def __init__(self, message: str = "", reason: str = "", /) -> None:
        super().__init__(message, reason)

    @property
    def reason(self) -> str:
        """`refused`, `dns`, `tls` or `broken` (the connection ended in the middle of an answer)."""
        return str(self.args[1])


class CircuitOpenError(ExecutorConnectionError):
    """The Executor failed too often, or a person opened its circuit breaker. Nothing was sent."""

    advice = (
        "Submit it as a new plan after `retry_after_s`, or set `circuit_breaker_on_open` to `defer`. "
        "If it was opened by hand: `dispatcher breaker close`."
    )
    exit_code = 17

    def __init__(self, message: str = "", retry_after_s: float | None = None, /) -> None:
        ExecutorClientError.__init__(self, message, retry_after_s)

    @property
    def reason(self) -> str:
        """`circuit`"""
        return "circuit"

    @property
    def retry_after_s(self) -> float | None:
        """In how many seconds the Executor may be called again.

        None if that is unknown: a person opened the circuit breaker, and a person closes it.
        """
        return None if self.args[1] is None else float(str(self.args[1]))


class CapabilityMissingError(ExecutorClientError):
    """The Executor cannot do what the plan asks for: match headers, or abort gRPC calls as such. No apply
    was sent."""

    advice = (
        "Choose an Executor that has what `missing` names (`dispatcher doctor` lists it), or leave out the "
        "plan's fields that need it."
    )
    exit_code = 27

    def __init__(self, message: str = "", missing: list[str] | None = None, /) -> None:
        super().__init__(message, missing or [])

    @property
    def missing(self) -> list[str]:
        """The capabilities that it lacks: `headers`, `grpc_status`."""
        return list(self.args[1])


class _StatusError(ExecutorClientError):
    """An answer whose HTTP status says no."""

    def __init__(
        self,
        message: str = "",
        status: int = 0,
        executor_message: str = "",
        retry_after_s: float | None = None,
        /,
    ) -> None:
        super().__init__(message, status, executor_message, retry_after_s)

    @property
    def status(self) -> int:
        """The HTTP status of the answer."""
        return int(self.args[1])

    @property
    def executor_message(self) -> str:
        """The Executor's own words."""
        return str(self.args[2])

    @property
    def retry_after_s(self) -> float | None:
        """How long the Executor asks to be left alone (`Retry-After`, RFC 9110), in seconds."""
        return None if self.args[3] is None else float(str(self.args[3]))


class ExecutorRejectedError(_StatusError):
    """The Executor refused the request (4xx). Repeating it unchanged fails again."""

    advice = "Correct what `executor_message` complains about: the plan, the token, or `base_url`."
    exit_code = 12


class ExecutorServerError(_StatusError):
    """The Executor is overloaded or broken (408, 429, 5xx)."""

    advice = "Read the Executor's log. Once it is healthy, submit it as a new plan."
    exit_code = 13
    retry_safe = True


class ExecutorProtocolError(ExecutorClientError):
    """The answer breaks the contract. A retry would fail again."""

    advice = "Check the Executor with `dispatcher conformance URL`, and its version."
    exit_code = 14

    def __init__(self, message: str = "", apply_id: str = "", /) -> None:
        super().__init__(message, apply_id)

    @property
    def apply_id(self) -> str:
        """The fault that a broken answer to an apply names all the same. Empty if it names none."""
        return str(self.args[1])


class FaultFailedError(ExecutorClientError):
    """The Executor says that the fault failed."""

    advice = "Read its reason in the message. Submitting it as a new plan is safe."
    exit_code = 15


class FaultLostError(ExecutorClientError):
    """The Executor no longer knows the fault, most often because it restarted. No observation exists."""

    advice = "Submit it as a new plan."
    exit_code = 16


class FaultUnobservedError(ExecutorClientError):
    """Too few requests met the fault, or an observer could not see it, or it was in doubt (`on_doubt`)."""

    advice = "Send requests to the target meanwhile, or lower `min_requests`. Submit it as a new plan."
    exit_code = 23


class FaultInDoubtError(ExecutorClientError):
    """No answer of the Executor says that the fault is over. Its target stays reserved."""

    advice = "Check the target; once it is healthy, `dispatcher release SERVICE PATH --reason TEXT`."
    exit_code = 21

    def __init__(self, message: str = "", apply_id: str = "", /) -> None:
        super().__init__(message, apply_id)

    @property
    def apply_id(self) -> str:
        """The Executor's id of the fault. Empty if it was never learned."""
        return str(self.args[1])


class MetricsNotReadyError(TimeoutError):
    """The Executor had no metrics of the fault when the plan's time was used up."""

    advice = "Allow more time (docs/timeouts.md), and read the Executor's log. Submit it as a new plan."
    exit_code = 22
    retry_safe = True
