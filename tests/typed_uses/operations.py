"""See what runs, and stop it."""

from datetime import datetime
from typing import assert_type

from dispatcher import ActiveFault, Dispatcher, ExecutorClientMetrics, Health, PlanStatus


def run(dispatcher: Dispatcher) -> None:
    assert_type(dispatcher.active(), list[ActiveFault])
    assert_type(dispatcher.in_flight(limit=10), list[PlanStatus])
    assert_type(dispatcher.count_in_flight(), int)
    assert_type(dispatcher.server_time(), datetime)
    assert_type(dispatcher.check_health(), bool)
    assert_type(dispatcher.health("default"), Health)
    metrics = dispatcher.metrics()
    assert_type(metrics, ExecutorClientMetrics)
    assert_type(metrics.get_success_rate(), float)
    assert_type(metrics.to_dict(), dict[str, float])
    assert_type(dispatcher.release("A", "/x", "it is well"), list[str])
    assert_type(dispatcher.halt("an incident"), int)
    assert_type(dispatcher.halted(), str | None)
    assert_type(dispatcher.resume(), bool)
