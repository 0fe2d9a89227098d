"""Use the source specification's names, and implement its interface."""

from datetime import UTC, datetime
from typing import assert_type

from dispatcher import Dispatcher
from dispatcher.specification import (
    CircuitBreaker,
    ExecutorClientConfig,
    ExecutorClientError,
    FaultPlan,
    HttpExecutorClient,
    HttpExecutorClientWithExtendedAPI,
    IExecutorClient,
    RawObservation,
)


class GrpcExecutorClient(IExecutorClient):
    def apply_and_observe(self, plan: FaultPlan, timeout_sec: float = 30.0) -> RawObservation:
        raise ExecutorClientError(f"{plan.service}: not within {timeout_sec} s")

    def check_health(self) -> bool:
        return True


def clients() -> list[IExecutorClient]:
    config = ExecutorClientConfig(executor_host="executor-service", circuit_breaker_failure_threshold=5)
    return [GrpcExecutorClient(), HttpExecutorClient(config), Dispatcher()]


def run(plan: FaultPlan) -> RawObservation:
    breaker = CircuitBreaker(failure_threshold=5, timeout_sec=60.0)
    assert_type(breaker.can_attempt(), bool)
    breaker.record_success()
    breaker.record_failure()
    breaker.reset()
    with HttpExecutorClientWithExtendedAPI(ExecutorClientConfig()) as client:
        assert_type(client, HttpExecutorClientWithExtendedAPI)
        observation = client.apply_and_observe(plan, 30.0, start_time=datetime(2030, 1, 31, tzinfo=UTC))
    assert_type(observation, RawObservation)
    return observation
