"""The policy API of the existing Executor: `POST`, `GET` and `DELETE /v1/policies` (appendix A).

A plan is one policy, named after the plan. It is over once its policy was seen and is absent from the list of
a store that is ready. The API says nothing of what the fault did, so an observer must be configured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dispatcher.capabilities import CAPABILITIES_OF_DRIVERS
from dispatcher.errors import (
    ExecutorClientError,
    ExecutorProtocolError,
    FaultFailedError,
    FaultLostError,
)
from workers.drivers.base import Driver, FaultState, FaultStatus, ListedFault, StopOutcome
from workers.drivers.contract import check_well
from workers.drivers.deadline import Deadline
from workers.drivers.lists import sign_of_more
from workers.drivers.options import read_options
from workers.drivers.policies import (
    PREFIX,
    PolicyOptions,
    difference,
    plan_id_of,
    policy_body,
    policy_name,
    reach_of,
)
from workers.drivers.transport import HttpTransport

if TYPE_CHECKING:
    from datetime import datetime

    from dispatcher.models import FaultPlan
    from dispatcher.observations import RawObservation
    from dispatcher.settings.executors import ExecutorClientConfig
    from workers.drivers.answers import Answer

__all__ = ["PolicyApiDriver"]

NOT_FOUND = 404
NO_SUCH_METHOD = {404, 405, 501}
POLICIES = "/v1/policies"
LISTS = ("policies", "items")
"""Names of the list in an answer that is an object."""


class PolicyApiDriver(Driver):
    """The driver of the policy API. See `Driver` for what each method does and raises.

    A policy can have headers; the echo of its `POST` shows whether the control plane keeps them.
    """

    supports = CAPABILITIES_OF_DRIVERS["policy_api"]

    def __init__(self, config: ExecutorClientConfig, connections: int) -> None:
        """`connections` is how many threads will call at once. Raises `InvalidSettingsError`."""
        self._options = read_options(config, PolicyOptions)
        self.reach = reach_of(self._options)
        self._transport = HttpTransport(config, connections)
        self.longest_call_s = 2 * self._transport.longest_call_s  # an apply may delete as well

    def apply(self, plan: FaultPlan, key: str, within_s: float, not_after: datetime) -> str:
        """Post the policy, and delete it if the control plane keeps another one than was sent.

        The same name again replaces it, and its time begins again. The API cannot check `not_after`. Raises
        `InvalidPlanError` for a header of which the driver's options have another value.
        """
        del not_after
        name = policy_name(key)
        body = policy_body(plan, name, self._options)
        deadline = Deadline(min(within_s, self.longest_call_s))
        answer = self._transport.call("POST", POLICIES, body, within_s=deadline.left_s)
        if not answer.ok:
            raise answer.error()
        try:
            problem = difference(body, answer.json())
        except ExecutorProtocolError as exc:
            problem = exc.message
        if problem is not None:
            then = self._delete(name, deadline)
            message = f"{answer.call}: policy {name} is kept otherwise: {problem}; {then}"
            raise ExecutorProtocolError(message, name)
        return name

    def id_of(self, key: str) -> str | None:
        """The name of a policy follows from the plan id."""
        return policy_name(key)

    def status(self, apply_id: str, within_s: float) -> FaultStatus:
        """Running as long as the policy is there. Completed once a ready store does not list it any more."""
        deadline = Deadline(min(within_s, self.longest_call_s))
        answer = self._transport.call("GET", _path(apply_id), within_s=deadline.left_s)
        if answer.ok:
            _check(answer, apply_id)
            return FaultStatus(FaultState.RUNNING)
        if not _is_no_policy(answer):
            raise answer.error()
        names = self._names(deadline)
        if names is None:
            gone = "the policy has gone, and the control plane does not list its policies"
            raise FaultLostError(f"{answer.call}: {gone}; it is unknown whether its time was over")
        return FaultStatus(FaultState.RUNNING if apply_id in names else FaultState.COMPLETED)

    def metrics(self, apply_id: str, within_s: float) -> RawObservation:
        """The API has none."""
        del within_s
        raise FaultFailedError(f"fault {apply_id} was not observed: the policy API has no metrics")

    def faults(self, within_s: float) -> list[ListedFault] | None:
        """The policies whose names begin with `plan-`."""
        names = self._names(Deadline(min(within_s, self.longest_call_s)))
        if names is None:
            return None
        return [ListedFault(name, plan_id_of(name)) for name in names if name.startswith(PREFIX)]

    def health(self, within_s: float) -> None:
        """Ask for readiness, which includes the store. Without it, `/v1/health` at least answers."""
        deadline = Deadline(min(within_s, self.longest_call_s))
        if not self._ready(deadline):
            answer = self._transport.call("GET", "/v1/health", within_s=deadline.left_s)
            if not answer.ok:
                raise answer.error()
            check_well(answer)

    def stop(self, apply_id: str) -> StopOutcome:
        """Delete the policy. Over only if a ready store does not list it any more."""
        deadline = Deadline(self.longest_call_s)
        answer = self._transport.call("DELETE", _path(apply_id), within_s=deadline.left_s)
        if not answer.ok and not _is_no_policy(answer):
            raise answer.error()
        try:
            names = self._names(deadline)
        except ExecutorClientError:
            return StopOutcome.UNCONFIRMED
        absent = names is not None and apply_id not in names
        return StopOutcome.OVER if absent else StopOutcome.UNCONFIRMED

    def close(self) -> None:
        self._transport.close()

    def _names(self, deadline: Deadline) -> list[str] | None:
        """Names of all policies, if the store is ready. None if the control plane cannot list them."""
        self._ready(deadline)
        answer = self._transport.call("GET", POLICIES, within_s=deadline.left_s)
        if answer.status in NO_SUCH_METHOD:
            return None
        if not answer.ok:
            raise answer.error()
        return _listed(answer)

    def _ready(self, deadline: Deadline) -> bool:
        """Whether the control plane reports that its store is ready. False if it reports nothing about it.

        Raises `ExecutorClientError` if it is not ready.
        """
        answer = self._transport.call("GET", "/v1/ready", within_s=deadline.left_s)
        if answer.status in NO_SUCH_METHOD:
            return False
        if not answer.ok:
            raise answer.error()
        check_well(answer)
        return True

    def _delete(self, name: str, deadline: Deadline) -> str:
        """Delete the policy. The outcome, in words."""
        try:
            answer = self._transport.call("DELETE", _path(name), within_s=deadline.left_s)
        except ExecutorClientError as exc:
            return f"it was not deleted ({exc.message})"
        if answer.ok or _is_no_policy(answer):
            return "it was deleted"
        return f"it was not deleted ({answer.error().message})"


def _listed(answer: Answer) -> list[str]:
    """Names of the policies in a list. `null` is how programs in Go write an empty one."""
    policies = fields = answer.json()
    if isinstance(fields, dict):
        policies = next((fields[name] for name in LISTS if name in fields), ...)
    policies = [] if policies is None else policies
    if not isinstance(policies, list):
        raise answer.protocol_error("is not a list of policies")
    if isinstance(fields, dict) and (sign := sign_of_more(fields, len(policies))):
        raise answer.protocol_error(f"is a part of a longer list ({sign})")
    names = [_name(each) for each in policies]
    if None in names:
        raise answer.protocol_error(f"has a policy without a name (number {names.index(None) + 1})")
    return [name for name in names if name is not None]


def _name(policy: object) -> str | None:
    metadata = policy.get("metadata") if isinstance(policy, dict) else None
    name = metadata.get("name") if isinstance(metadata, dict) else None
    return name if isinstance(name, str) else None


def _check(answer: Answer, name: str) -> None:
    """Raises `ExecutorProtocolError` for an answer that is not this policy."""
    if _name(answer.json()) != name:
        raise answer.protocol_error(f"is not policy {name}")


def _is_no_policy(answer: Answer) -> bool:
    """Whether a 404 means that there is no such policy, rather than no such API."""
    if answer.status != NOT_FOUND:
        return False
    try:
        message = answer.json()
    except ExecutorClientError:
        return False
    details = message.get("details") if isinstance(message, dict) else None
    return isinstance(details, dict) and details.get("resource") == "policy"


def _path(name: str) -> str:
    return f"{POLICIES}/{name}"
