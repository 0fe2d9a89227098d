"""What an Executor can do beyond the contract's basics, and what is said if a plan needs more."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from dispatcher.errors import CapabilityMissingError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["CAPABILITIES_OF_DRIVERS", "NEEDED_BY", "Capability", "refusal"]


class Capability(StrEnum):
    """What `GET /v1/health` may list under `capabilities`. Other names are ignored."""

    HEADERS = "headers"
    """A fault hits, and its metrics count, only requests with the headers of its apply."""

    GRPC_STATUS = "grpc_status"
    """With `protocol` `grpc`, a fault hits and counts gRPC calls only, and aborts with a `grpc_status`."""

    HTTP2 = "http2"
    """Faults hit requests over HTTP/2 as they hit those over HTTP/1.1."""

    DEAD_MAN = "dead_man"
    """All faults end by themselves within seconds if the Executor dies or hangs."""


NEEDED_BY = {Capability.HEADERS: "headers", Capability.GRPC_STATUS: "protocol grpc"}
"""What of a plan needs the capability."""

CAPABILITIES_OF_DRIVERS = {
    "faults_api": frozenset(NEEDED_BY),
    "policy_api": frozenset({Capability.HEADERS}),
}
"""What the APIs of these drivers can express of what a plan may ask for."""


def refusal(executor: str, missing: Iterable[str], why: str, plan_id: str = "") -> CapabilityMissingError:
    """The error for a plan that needs capabilities that `executor` lacks. `why` says how that is known."""
    names = sorted(str(each) for each in missing)
    plan = f"plan {plan_id}" if plan_id else "the plan"
    asked = " and ".join(NEEDED_BY[Capability(name)] for name in names)
    listed = " and ".join(names)
    message = f"{plan} asks for {asked}, and executor {executor} lacks {listed}: {why}"
    return CapabilityMissingError(message, names)
