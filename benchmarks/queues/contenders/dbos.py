"""DBOS on Postgres: an asynchronous workflow of two steps and a durable sleep, from a queue without a limit.

Each worker process has an executor id of its own, so that it recovers its workflows when it is started again.
Client and workers have larger pools than the defaults, which a queue needs to start many workflows at once.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

from dbos import DBOS, DBOSClient, DBOSConfig

from benchmarks.queues.contenders.base import Base, Ended, collect
from benchmarks.queues.contenders.calls import AsyncCalls
from benchmarks.queues.contenders.postgres import postgres
from benchmarks.stage.commands import free_port, python, until

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.stage.commands import Command

QUEUE = "plans"
VERSION = "1"
POOL = 40
POLL_S = 0.1
"""Its default of 1 s would add that to each plan's lag."""

SUBMITTERS = 8
calls = AsyncCalls()


@DBOS.step()
async def apply(plan: dict[str, Any]) -> str:
    """Apply the fault. Returns its id."""
    return await calls.apply(plan, DBOS.workflow_id or "")


@DBOS.step()
async def observe(apply_id: str) -> dict[str, Any]:
    """Ask for the status, collect the metrics."""
    return await calls.observe(apply_id)


@DBOS.workflow()
async def carry_out(plan: dict[str, Any]) -> dict[str, Any]:
    """Apply, wait, observe."""
    apply_id = await apply(plan)
    await DBOS.sleep_async(plan["duration_seconds"])
    return await observe(apply_id)


class Contender(Base):
    """Worker processes, a Postgres, and a client that enqueues from several threads."""

    def workers(self, count: int) -> list[Command]:
        return [python(__name__, number) for number in range(count)]

    def __enter__(self) -> Self:
        port = free_port()
        self.stage.add_servers([postgres(self.stage.folder / "postgres", port)])
        os.environ["PEER_POSTGRES"] = url = f"postgresql://postgres@127.0.0.1:{port}/postgres"
        until(lambda: _migrated(url, port))
        self._threads = ThreadPoolExecutor(SUBMITTERS)
        self._client = DBOSClient(system_database_url=url, system_database_pool_size=SUBMITTERS)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._threads.shutdown()
        self._client.destroy()

    def submit_many(self, plans: Sequence[Any]) -> list[str]:
        return list(self._threads.map(self.submit, plans))

    def submit(self, plan: Any) -> str:
        options: Any = {"queue_name": QUEUE, "workflow_name": carry_out.__qualname__, "app_version": VERSION}
        return str(self._client.enqueue(options, plan).workflow_id)

    def endings(self, submitted: Sequence[Any], timeout_s: float = 0) -> list[Ended | None]:
        """One query for some hundred plans, which is cheaper than a handle's own polling."""
        return collect(submitted, timeout_s, self._endings)

    def _endings(self, ids: Sequence[str]) -> list[Ended | None]:
        ended = self._client.list_workflows(workflow_ids=list(ids), status="SUCCESS", load_input=False)
        found = {each.workflow_id: Ended.of(each.output) for each in ended if each.output is not None}
        return [found.get(each) for each in ids]


def _migrated(url: str, port: int) -> bool:
    """Make DBOS's tables. False while Postgres does not answer."""
    with suppress(Exception):
        socket.create_connection(("127.0.0.1", port), 1).close()
        DBOS.migrate(url)
        return True
    return False


def main() -> None:
    """Be a worker process until killed."""
    config: DBOSConfig = {
        "name": "plans",
        "system_database_url": os.environ["PEER_POSTGRES"],
        "sys_db_pool_size": POOL,
        "executor_id": sys.argv[1],
        "application_version": VERSION,
        "log_level": "WARNING",
    }
    DBOS(config=config)
    DBOS.launch()
    DBOS.register_queue(QUEUE, polling_interval_sec=POLL_S)
    threading.Event().wait()


if __name__ == "__main__":
    main()
