"""Mistakes that a type checker must find. A comment that ignores none of them is an error itself."""

from dispatcher import Dispatcher, FaultPlan, FaultType, PlanHandle


def run(dispatcher: Dispatcher, handle: PlanHandle, plan: FaultPlan) -> None:
    handle.result(timeout="90")  # type: ignore[arg-type]
    handle.results()  # type: ignore[attr-defined]
    dispatcher.submit({"service": "A"})  # type: ignore[arg-type]
    dispatcher.submit(plan, plan_idd="monday-1")  # type: ignore[call-arg]
    dispatcher.submit_many(plan)  # type: ignore[arg-type]
    plan.percentage = 10  # type: ignore[misc]
    plan.percent  # type: ignore[attr-defined]  # noqa: B018
    FaultType.SLOW  # type: ignore[attr-defined]  # noqa: B018
    FaultPlan.from_point({}, percentage_is="ratio")  # type: ignore[arg-type]
