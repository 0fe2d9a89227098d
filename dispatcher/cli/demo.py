"""`dispatcher demo`"""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from dispatcher.cli.outcomes import Outcome, show
from dispatcher.cli.terminal import stderr
from dispatcher.cli.waiting import collect
from dispatcher.client import Dispatcher
from dispatcher.devstack.stack import Stack
from dispatcher.models import FaultPlan, FaultType
from dispatcher.observations import RawObservation

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["demo", "fits"]

TRAFFIC_RPS = 40.0
WORKERS = 2
ERROR_RATE_TOLERANCE = 0.15
"""Five standard deviations of a 30 % share over the demo's 240 requests."""


def _plan(target: str, percentage: int, duration_seconds: int = 6, **fault: float) -> FaultPlan:
    service, api = target.split()
    kind = FaultType.DELAY if "delay_seconds" in fault else FaultType.ABORT
    fields = {"fault_type": kind, "percentage": percentage, "duration_seconds": duration_seconds, **fault}
    return FaultPlan.model_validate({"service": service, "api": api, **fields})


PAY = "PaymentService /api/v1/payment/process"
BASELINE = _plan(PAY, percentage=0, duration_seconds=3, delay_seconds=0.3)
FAULTS = [
    _plan(PAY, percentage=50, delay_seconds=0.3),
    _plan("OrderService /api/v1/orders", percentage=100, abort_http_status=503),
    _plan("InventoryService /api/v1/stock", percentage=30, abort_http_status=500),
    _plan("OrderService /api/v1/orders/search", percentage=100, delay_seconds=0.2, start_delay_ms=150),
    _plan("InventoryService /api/v1/reserve", percentage=50, abort_http_status=502, start_delay_ms=100),
]


def demo() -> None:
    """Start the whole system on this machine, send fault plans through it, and show what came back.

    A real Redis, the reference Executor with Envoy and two workers are started on free loopback ports, and
    ended again. Exits with 0 only if every plan ended with an observation that fits it.
    """
    stderr.print(f"starting Redis, the Executor with Envoy, and {WORKERS} workers ...")
    with Stack(workers=WORKERS, traffic_rps=TRAFFIC_RPS) as stack, Dispatcher(stack.settings) as dispatcher:
        outcomes: list[Outcome] = []
        for wave in ([BASELINE], FAULTS):
            stderr.print(f"submitting {len(wave)} fault plan{'s' if len(wave) > 1 else ''} ...")
            outcomes += collect([(dispatcher.submit(plan), plan) for plan in wave], check=stack.check)
    misfits = _misfits(outcomes)
    show(outcomes, ["no" if misfit else "yes" for misfit in misfits])
    for outcome, misfit in zip(outcomes, misfits, strict=True):
        if misfit:
            stderr.print(f"plan {outcome.plan_id} ({outcome.plan}): {misfit}", soft_wrap=True)
    raise typer.Exit(1 if any(misfits) else 0)


def _misfits(outcomes: Sequence[Outcome]) -> list[str | None]:
    baseline = outcomes[0].result
    baseline_ms = baseline.latency_ms if isinstance(baseline, RawObservation) else None
    return [
        fits(outcome.plan, outcome.result, baseline_ms or 0.0)
        if isinstance(outcome.result, RawObservation)
        else "it has no observation"
        for outcome in outcomes
    ]


def fits(plan: FaultPlan, observation: RawObservation, baseline_ms: float) -> str | None:
    """None if the observation is what the plan should have caused, otherwise what is odd about it."""
    if not observation.requests:
        return "no request met the fault"
    if observation.error_rate is None or observation.latency_ms is None:
        return "its error rate or its latency was not observed"
    share = plan.percentage / 100
    expected_errors = share if plan.fault_type is FaultType.ABORT else 0.0
    tolerance = ERROR_RATE_TOLERANCE if 0 < expected_errors < 1 else 0.0
    if round(abs(observation.error_rate - expected_errors), 6) > tolerance:
        return f"error rate {observation.error_rate:.2f} instead of {expected_errors:.2f}"
    if expected_errors == 1 and observation.status_code != plan.abort_http_status:
        return f"status {observation.status_code} instead of {plan.abort_http_status}"
    held_ms = share * (plan.start_delay_ms + (plan.delay_seconds or 0.0) * 1000)
    if observation.latency_ms < baseline_ms * bool(plan.delay_seconds) + 0.7 * held_ms:
        return f"mean latency {observation.latency_ms:.0f} ms, although {held_ms:.0f} ms were added"
    return None
