"""Temporal: a workflow of two local activities and a timer, with the development server on a SQLite file.

Local activities need no round trip to the server, as Temporal recommends for short calls. The number of
pollers follows the load. The workflow runs outside of the sandbox, which costs time in each. The file is
written ahead, and is synced like Redis's, not with each commit.
"""

from __future__ import annotations

import asyncio
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from typing import Any
from uuid import uuid4

import uvloop
from temporalio import activity, workflow
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.worker import PollerBehaviorAutoscaling, UnsandboxedWorkflowRunner, Worker

from benchmarks.queues.contenders.asynchronous import AsyncBase
from benchmarks.queues.contenders.base import Ended, program
from benchmarks.queues.contenders.calls import AsyncCalls
from benchmarks.stage.commands import Command, free_port, python

QUEUE = "plans"
CALL_S = timedelta(seconds=30)
READY_WITHIN_S = 60.0
calls = AsyncCalls()


@activity.defn
async def apply(plan: dict[str, Any]) -> str:
    """Apply the fault. Returns its id."""
    return await calls.apply(plan, activity.info().workflow_id or "")


@activity.defn
async def observe(apply_id: str) -> dict[str, Any]:
    """Ask for the status, collect the metrics."""
    return await calls.observe(apply_id)


@workflow.defn
class CarryOut:
    """One plan."""

    @workflow.run
    async def run(self, plan: dict[str, Any]) -> dict[str, Any]:
        """Apply, wait, observe."""
        apply_id = await workflow.execute_local_activity(apply, plan, start_to_close_timeout=CALL_S)
        await workflow.sleep(plan["duration_seconds"])
        return await workflow.execute_local_activity(observe, apply_id, start_to_close_timeout=CALL_S)


class Contender(AsyncBase):
    """Worker processes, the server, and a client."""

    def workers(self, count: int) -> list[Command]:
        return [python(__name__, self.in_flight)] * count

    async def open(self) -> None:
        port, folder = free_port(), self.stage.folder
        pragmas = ["--sqlite-pragma", "journal_mode=WAL", "--sqlite-pragma", "synchronous=NORMAL"]
        listen = ["--ip", "127.0.0.1", "--port", str(port), "--db-filename", str(folder / "temporal.db")]
        start = [str(program("temporal")), "server", "start-dev", "--headless", "--log-level", "error"]
        self.stage.add_servers([Command([*start, *listen, *pragmas])])
        os.environ["PEER_TEMPORAL"] = f"127.0.0.1:{port}"
        self._client = await connected(READY_WITHIN_S)

    async def send(self, plan: Any) -> WorkflowHandle[Any, Any]:
        return await self._client.start_workflow(CarryOut.run, plan, id=uuid4().hex, task_queue=QUEUE)

    async def ended(self, handle: WorkflowHandle[Any, Any], within_s: float) -> Ended | None:
        with suppress(TimeoutError, WorkflowFailureError):
            return Ended.of(await asyncio.wait_for(handle.result(), within_s))
        return None


async def connected(within_s: float) -> Client:
    """A client, once the server answers."""
    async with asyncio.timeout(within_s):
        while True:
            with suppress(RuntimeError):
                return await Client.connect(os.environ["PEER_TEMPORAL"])
            await asyncio.sleep(0.2)


async def work(in_flight: int) -> None:
    """Be a worker process until killed."""
    pollers = PollerBehaviorAutoscaling()
    worker = Worker(
        await connected(READY_WITHIN_S),
        task_queue=QUEUE,
        workflows=[CarryOut],
        activities=[apply, observe],
        workflow_runner=UnsandboxedWorkflowRunner(),
        workflow_task_executor=ThreadPoolExecutor(4),
        max_cached_workflows=max(1_000, in_flight),
        workflow_task_poller_behavior=pollers,
        activity_task_poller_behavior=pollers,
    )
    await worker.run()


if __name__ == "__main__":
    uvloop.run(work(int(sys.argv[1])))
