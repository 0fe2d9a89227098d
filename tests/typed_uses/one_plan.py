"""Submit one plan, look at it, and wait for its observation."""

from typing import assert_type

from dispatcher import Dispatcher, FaultPlan, FaultType, PlanHandle, PlanState, PlanStatus, RawObservation


def run() -> float | None:
    plan = FaultPlan(
        service="PaymentService",
        api="/pay",
        fault_type=FaultType.ABORT,
        abort_http_status=503,
        percentage=50,
        duration_seconds=30,
    )
    assert_type(plan.percentage, int)
    assert_type(plan.delay_seconds, float | None)
    with Dispatcher() as dispatcher:
        assert_type(dispatcher, Dispatcher)
        handle = dispatcher.submit(plan, plan_id="monday-1", conflict_policy="reject", expires=60)
        assert_type(handle, PlanHandle)
        assert_type(handle.id, str)
        status = handle.status()
        assert_type(status, PlanStatus)
        assert_type(status.state, PlanState)
        assert_type(status.state.final, bool)
        observation = handle.result(timeout=90)
        assert_type(observation, RawObservation)
        assert_type(handle.cancel("no longer needed"), bool)
    return observation.error_rate
