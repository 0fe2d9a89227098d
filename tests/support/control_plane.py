"""The existing control plane's policy API, as it answers, traps included."""

from __future__ import annotations

import copy
import functools
import json
import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from support.loopback import LoopbackServer

if TYPE_CHECKING:
    from support.loopback import Answer

NOT_FOUND = "404 page not found\n"


@dataclass
class ControlPlane(LoopbackServer):
    """Takes nonsense, overwrites in silence, and forgets a policy when its time is over.

    An older version drops fields that it does not know. Its store is memory, or etcd, which keeps policies
    over a restart, but not their timers.

    Time is what `now_s` says: the real one, until a test lets it `pass_`.
    """

    policies: dict[str, tuple[dict[str, Any], float]] = field(default_factory=dict)
    calls: list[tuple[str, str]] = field(default_factory=list)
    posted: list[dict[str, Any]] = field(default_factory=list)
    drops: list[str] = field(default_factory=list)
    """Paths of the fields that this version does not keep, as in `spec.selector` or `spec.rules.0.match`."""

    ready: bool | None = True
    """Whether the store answers. None: an older version without `/v1/ready`."""

    lists: bool = True
    proxied_404: bool = False
    """Whether a proxy in front of it knows no path at all."""

    _passed_s: float = 0.0

    @property
    def now_s(self) -> float:
        return time.monotonic() + self._passed_s

    def pass_(self, seconds: float) -> None:
        self._passed_s += seconds

    def there(self) -> list[str]:
        """Names of the policies that are on."""
        return [name for name, (_, ends_s) in self.policies.items() if self.now_s < ends_s]

    def restart(self, *, etcd: bool = False) -> None:
        """All policies are gone; or they stay forever, if they were in etcd."""
        self.policies = {name: (policy, float("inf")) for name, (policy, _) in self.policies.items() if etcd}

    def answer_bytes(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        status, answer = self.answer(method, path, body)
        if isinstance(answer, str):
            return status, answer.encode(), "text/plain; charset=utf-8"
        return status, json.dumps(answer).encode(), "application/json"

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, object]:
        self.calls.append((method, path))
        if not self.proxied_404:
            if (method, path) == ("GET", "/v1/health"):
                return 200, {"status": "healthy"}
            if (method, path) == ("GET", "/v1/ready") and self.ready is not None:
                return (200, {"status": "ready"}) if self.ready else (503, {"status": "not ready"})
            if (method, path) == ("GET", "/v1/policies") and self.lists:
                return 200, [self.policies[name][0] for name in self.there()] or None
            if (method, path) == ("POST", "/v1/policies"):
                return self._post(body)
            one = re.fullmatch("/v1/policies/([^/]+)", path)
            if one and method in {"GET", "DELETE"}:
                return self._about(method, one[1])
        return 404, NOT_FOUND

    def _about(self, method: str, name: str) -> tuple[int, object]:
        if name not in self.there():
            missing = {"error": "not_found", "message": "policy not found", "details": {"resource": "policy"}}
            return 404, missing
        if method == "GET":
            return 200, self.policies[name][0]
        del self.policies[name]
        return 200, {"message": "policy deleted"}

    def _post(self, body: bytes) -> tuple[int, object]:
        try:
            policy = json.loads(body)
        except ValueError:
            return 400, {"error": "invalid request body: invalid character"}
        fault = policy["spec"]["rules"][0]["fault"]
        numbers = [fault.get(name, 0) for name in ("percentage", "duration_seconds")]
        if not policy["metadata"].get("name") or any(not isinstance(number, int) for number in numbers):
            return 400, {"error": "invalid_input", "message": "invalid policy"}
        self.posted.append(copy.deepcopy(policy))
        for dropped in self.drops:
            *above, name = dropped.split(".")
            functools.reduce(_part, above, policy).pop(name, None)
        lasts_s = numbers[1] or float("inf")
        self.policies[policy["metadata"]["name"]] = (policy, self.now_s + lasts_s)
        return 201, policy


def _part(whole: Any, name: str) -> Any:
    return whole[int(name)] if isinstance(whole, list) else whole[name]
