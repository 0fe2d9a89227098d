"""The policy API of the existing Executor: `POST`, `GET` and `DELETE /v1/policies` (appendix A).

A plan is one policy, named after the plan. It is over once its policy has gone, by itself or deleted. The API
tells nothing of what the fault did, so an observer must be configured.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any

from dispatcher.errors import ExecutorClientError, FaultFailedError
from dispatcher.models import FaultPlan, FaultType
from dispatcher.observations import RawObservation
from workers.drivers.base import Driver, FaultState
from workers.drivers.transport import HttpTransport

if TYPE_CHECKING:
    from dispatcher.settings.executors import ExecutorClientConfig
    from workers.drivers.answers import Answer

__all__ = ["PolicyApiDriver", "policy_body", "policy_name"]

NOT_FOUND = 404
SAFE_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,50}")


class PolicyApiDriver(Driver):
    """Speaks the policy API. See `Driver` for what each method does and raises."""

    def __init__(self, config: ExecutorClientConfig, connections: int) -> None:
        """`connections` is how many threads will call at once."""
        self._transport = HttpTransport(config, connections)
        self.longest_call_s = 2 * self._transport.longest_call_s  # a look may delete as well

    def apply(self, plan: FaultPlan, key: str, within_s: float) -> str:
        """Post the policy. The same name again replaces it, and its time begins anew."""
        name = policy_name(key)
        answer = self._transport.call("POST", "/v1/policies", policy_body(plan, name), within_s=within_s)
        if not answer.ok:
            raise answer.error()
        _check(answer, name)
        return name

    def id_of(self, key: str) -> str | None:
        """Policies are named by us."""
        return policy_name(key)

    def status(self, apply_id: str, within_s: float) -> FaultState:
        """Running as long as the policy is there. What has gone is deleted all the same: it costs little."""
        answer = self._transport.call("GET", _path(apply_id), within_s=within_s)
        if answer.ok:
            _check(answer, apply_id)
            return FaultState.RUNNING
        if not _is_no_policy(answer):
            raise answer.error()
        self.stop(apply_id, within_s)
        return FaultState.COMPLETED

    def metrics(self, apply_id: str, within_s: float) -> RawObservation:
        """The API has none."""
        del within_s
        raise FaultFailedError(f"fault {apply_id} was not observed: the policy API has no metrics")

    def health(self, within_s: float) -> None:
        answer = self._transport.call("GET", "/v1/health", within_s=within_s)
        if not answer.ok:
            raise answer.error()

    def stop(self, apply_id: str, within_s: float = float("inf")) -> bool:
        answer = self._transport.call("DELETE", _path(apply_id), within_s=within_s)
        if not answer.ok and not _is_no_policy(answer):
            raise answer.error()
        return True

    def close(self) -> None:
        self._transport.close()


def policy_name(plan_id: str) -> str:
    """A name that can be part of a path, for every plan id: itself, or a hash where it is unusual."""
    usual = SAFE_NAME.fullmatch(plan_id)
    return f"plan-{plan_id if usual else hashlib.sha256(plan_id.encode()).hexdigest()[:40]}"


def policy_body(plan: FaultPlan, name: str) -> dict[str, Any]:
    """The plan as a policy, in the whole numbers that the API asks for."""
    fault: dict[str, Any] = {"percentage": plan.percentage, "duration_seconds": plan.duration_seconds}
    if plan.start_delay_ms:
        fault["start_delay_ms"] = plan.start_delay_ms
    if plan.fault_type is FaultType.DELAY and plan.delay_seconds is not None:
        fault["delay"] = {"fixed_delay_ms": round(plan.delay_seconds * 1000)}
    if plan.fault_type is FaultType.ABORT and plan.abort_http_status is not None:
        fault["abort"] = {"httpStatus": plan.abort_http_status}
    return {
        "metadata": {"name": name, "version": "v1"},
        "spec": {
            "selector": {"service": plan.service},
            "rules": [{"match": {"path": {"exact": plan.api}}, "fault": fault}],
        },
    }


def _check(answer: Answer, name: str) -> None:
    """Raises `ExecutorProtocolError` for an answer that is not this policy."""
    policy = answer.json()
    metadata = policy.get("metadata") if isinstance(policy, dict) else None
    if not isinstance(metadata, dict) or metadata.get("name") != name:
        raise answer.protocol_error(f"is not policy {name}")


def _is_no_policy(answer: Answer) -> bool:
    """Whether a 404 speaks of the policy, and not of an API that is not there."""
    if answer.status != NOT_FOUND:
        return False
    try:
        message = answer.json()
    except ExecutorClientError:
        return False
    details = message.get("details") if isinstance(message, dict) else None
    return isinstance(details, dict) and details.get("resource") == "policy"


def _path(name: str) -> str:
    return f"/v1/policies/{name}"
