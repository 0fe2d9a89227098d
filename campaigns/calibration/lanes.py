"""The 40 plans of a calibration, in lanes.

A lane is one target with steady traffic of its own. Its plans differ in their percentage, and are carried out
one after the other. The longest delay has a lane for each plan, because its requests are held for 30 s.

Some lanes may be probed: their Executor knows nothing of its data plane, so that a worker's probe observes
their targets and is their only client.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from dispatcher import FaultPlan, FaultType

if TYPE_CHECKING:
    from collections.abc import Iterable

BLIND = "/blind"
"""Below this path an Executor learns nothing of its data plane."""

PROBED = "probed"
"""Name of that Executor in the settings."""

PERCENTAGES = (1, 10, 30, 50, 100)
DURATION_S = 14
RATE_PER_S = 25
"""Of each lane. 350 requests meet a plan. All lanes together are a small load for two cores."""

PATIENT_S = 60.0
ABORT_STATUS = 503


@dataclass(frozen=True)
class Lane:
    """One target, the traffic to it, and the faults that it meets."""

    name: str
    fault_type: FaultType
    held_ms: int
    """How long the fault holds a request: the delay, or the start delay of an abort."""

    answer_ms: int
    """How long the API takes by itself."""

    patience_s: float = PATIENT_S
    """When the clients give up."""

    percentages: tuple[int, ...] = PERCENTAGES
    waits_s: float = 0.0
    """How much later than the first lanes it begins, so that not all send at once."""

    may_be_probed: bool = False
    """Whether it is probed, if the Executor has a part that learns nothing."""

    @property
    def service(self) -> str:
        """Name of the service, which only this lane uses."""
        return f"Lane-{self.name.replace(' ', '-')}"

    @property
    def api(self) -> str:
        """Path of the target."""
        return f"/{self.name.replace(' ', '-')}"

    @property
    def target(self) -> str:
        """The target of its requests, which says how long the API takes."""
        return f"{self.api}?ms={self.answer_ms}"

    def plans(self) -> list[FaultPlan]:
        """The plans, in their order."""
        return [self._plan(percentage) for percentage in self.percentages]

    def error_share(self, percentage: int) -> float:
        """The share of requests that end as errors, if the percentage is hit exactly.

        An aborted request is an error, and so is one that takes longer than its client waits.
        """
        hit_s = (self.held_ms + (0 if self.fault_type is FaultType.ABORT else self.answer_ms)) / 1000
        hit_fails = self.fault_type is FaultType.ABORT or hit_s > self.patience_s
        spared_fails = self.answer_ms / 1000 > self.patience_s
        return (percentage * hit_fails + (100 - percentage) * spared_fails) / 100

    def _plan(self, percentage: int) -> FaultPlan:
        what: dict[str, Any] = {"delay_seconds": self.held_ms / 1000}
        if self.fault_type is FaultType.ABORT:
            what = {"abort_http_status": ABORT_STATUS, "start_delay_ms": self.held_ms}
        return FaultPlan(
            service=self.service,
            api=self.api,
            fault_type=self.fault_type,
            percentage=percentage,
            duration_seconds=DURATION_S,
            **what,
        )


def answer_s(query: str) -> float:
    """How long the API takes, as a request asks for it."""
    return int(parse_qs(query)["ms"][0]) / 1000


def probed(lanes: Iterable[Lane], executor: str, proxy: str, takes_effect_s: float) -> dict[str, Any]:
    """Settings for the client and for workers. `executor` and `proxy` are URLs of the slow Executor."""
    default = {"base_url": executor, "takes_effect_sec": takes_effect_s}
    probe = {"kind": "probe", "requests_per_sec": RATE_PER_S}
    return {
        "executors": {
            "default": default,
            PROBED: default | {"base_url": executor + BLIND, "observer": probe},
        },
        "services": {
            lane.service: {
                "base_url": proxy,
                "request_timeout_sec": lane.patience_s,
                "apis": {lane.api: {"path": lane.target}},
            }
            for lane in lanes
            if lane.may_be_probed
        },
    }


def as_variables(settings: dict[str, Any]) -> dict[str, str]:
    """The same for the environment of a worker."""
    return {f"DISPATCHER_{name.upper()}": json.dumps(value) for name, value in settings.items()}


LANES = (
    Lane("abort", FaultType.ABORT, held_ms=0, answer_ms=1),
    Lane("abort of a slow API", FaultType.ABORT, held_ms=0, answer_ms=2000),
    Lane("abort after 50 ms", FaultType.ABORT, held_ms=50, answer_ms=50, may_be_probed=True),
    Lane("delay of 100 ms", FaultType.DELAY, held_ms=100, answer_ms=10),
    Lane("delay of 500 ms", FaultType.DELAY, held_ms=500, answer_ms=200, may_be_probed=True),
    Lane("impatient clients", FaultType.DELAY, held_ms=2000, answer_ms=20, patience_s=0.5),
    Lane("clients that wait 3 s", FaultType.DELAY, 10_000, 500, patience_s=3, may_be_probed=True),
    Lane("slow API and impatient clients", FaultType.DELAY, 1000, 2000, 1.2, percentages=(50,), waits_s=60),
    *(
        Lane(
            f"delay of 30 s at {percentage}",
            FaultType.DELAY,
            30_000,
            1,
            percentages=(percentage,),
            waits_s=wait_s,
        )
        for percentage, wait_s in ((1, 0), (10, 15), (30, 30), (100, 45))
    ),
)
"""Plans cannot ask for delays below 100 ms, so 50 ms is the start delay of an abort."""
