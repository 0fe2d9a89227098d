"""Real worker processes on each version of Redis and Valkey."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from support.eventually import eventually
from support.plans import abort_plan
from support.redis_server import blocked_for

from dispatcher import PlanCancelledError, PlanState
from dispatcher.ledger.waiters import SHORTEST_BLOCK_SEC

if TYPE_CHECKING:
    from support.processes import Workers
    from support.redis_server import RedisServer
    from support.stub_executor import StubExecutor

    from dispatcher import Dispatcher


@pytest.mark.every_server
def test_plans_are_carried_out_and_neither_client_nor_worker_blocks_forever(
    dispatcher: Dispatcher, start: Workers, stub: StubExecutor, redis_server: RedisServer
) -> None:
    with blocked_for(redis_server) as seconds:
        start(stub.url)
        one, other = dispatcher.submit(abort_plan()), dispatcher.submit(abort_plan(api="/other"))
        batch = dispatcher.submit_many([abort_plan(api=f"/{number}") for number in range(10)])
        stopped = dispatcher.submit(abort_plan(api="/stopped", duration_seconds=60))
        assert dispatcher.health(timeout_sec=60).healthy
        assert one.result(60).error_rate == 1.0
        assert asyncio.run(other.result_async(60)).error_rate == 1.0
        assert {type(outcome).__name__ for outcome in batch.results(60)} == {"RawObservation"}
        eventually(lambda: stopped.status().state is PlanState.RUNNING)
        dispatcher.halt("enough")
        with pytest.raises(PlanCancelledError, match="enough"):
            stopped.result(60)
        assert stub.stopped == {stopped.id}
    assert min(seconds) >= SHORTEST_BLOCK_SEC
