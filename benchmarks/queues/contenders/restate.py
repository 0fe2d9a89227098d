"""Restate: a handler of two journaled actions and a durable sleep, served by hypercorn.

Hypercorn has a process for each worker, uvloop, and the limits that Restate's page about serving
recommends. The server has its defaults, except that an action is written to its log without waiting for the
disk, like Redis's file.
"""

from __future__ import annotations

import os
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import aiohttp
import requests
import restate

from benchmarks.queues.contenders.asynchronous import AsyncBase
from benchmarks.queues.contenders.base import Ended, program
from benchmarks.queues.contenders.calls import AsyncCalls
from benchmarks.stage.commands import Command, free_port, python, until

if TYPE_CHECKING:
    from collections.abc import Sequence

LIMIT = 2**31 - 1
calls = AsyncCalls()
plans = restate.Service("Plans")


@plans.handler()
async def carry_out(ctx: restate.Context, plan: dict[str, Any]) -> dict[str, Any]:
    """Apply, wait, observe."""
    apply_id = await ctx.run_typed("apply", calls.apply, restate.RunOptions(), plan, ctx.request().id)
    await ctx.sleep(timedelta(seconds=plan["duration_seconds"]))
    return await ctx.run_typed("observe", calls.observe, restate.RunOptions(), apply_id)


app = restate.app([plans])


class Contender(AsyncBase):
    """Hypercorn with its processes, the server, and a client."""

    def workers(self, count: int) -> list[Command]:
        config = self.stage.folder / "hypercorn.toml"
        limits = ("h2_max_concurrent_streams", "keep_alive_max_requests", "keep_alive_timeout")
        lines = [f'bind = "127.0.0.1:{self._port}"', f"workers = {count}", 'worker_class = "uvloop"']
        config.write_text("\n".join([*lines, *(f"{name} = {LIMIT}" for name in limits)]), "utf-8")
        return [python("hypercorn", "--config", config, f"{__name__}:app")]

    async def open(self) -> None:
        self._port, node, admin, ingress = (free_port() for _ in range(4))
        self._ingress, self._admin = f"http://127.0.0.1:{ingress}", f"http://127.0.0.1:{admin}"
        settings = {
            "RESTATE_BASE_DIR": str(self.stage.folder / "restate"),
            "RESTATE_NODE_NAME": "one",
            "RESTATE_LISTEN_MODE": "tcp",
            "RESTATE_BIND_ADDRESS": f"127.0.0.1:{node}",
            "RESTATE_ADVERTISED_ADDRESS": f"http://127.0.0.1:{node}",
            "RESTATE_ADMIN__BIND_ADDRESS": f"127.0.0.1:{admin}",
            "RESTATE_INGRESS__BIND_ADDRESS": f"127.0.0.1:{ingress}",
            "RESTATE_LOG_SERVER__ROCKSDB_DISABLE_WAL_FSYNC": "true",
            "RESTATE_LOG_FILTER": "error",
            "RESTATE_DISABLE_TELEMETRY": "true",
            "DO_NOT_TRACK": "1",
        }
        self.stage.add_servers([Command([str(program("restate-server"))], settings)])
        connector = aiohttp.TCPConnector(limit=self.at_once)
        self._session = aiohttp.ClientSession(connector=connector, raise_for_status=True)
        self._registered = False

    async def close(self) -> None:
        await self._session.close()

    def submit_many(self, plans: Sequence[Any]) -> list[str]:
        if not self._registered:
            until(self._register)
        return super().submit_many(plans)

    async def send(self, plan: Any) -> str:
        url, headers = f"{self._ingress}/Plans/carry_out/send", {"idempotency-key": os.urandom(16).hex()}
        async with self._session.post(url, json=plan, headers=headers) as answer:
            return str((await answer.json())["invocationId"])

    async def ended(self, handle: str, within_s: float) -> Ended | None:
        """`attach` blocks until the result is there."""
        url, limit = f"{self._ingress}/restate/invocation/{handle}/attach", aiohttp.ClientTimeout(within_s)
        with suppress(TimeoutError, aiohttp.ClientResponseError):
            async with self._session.get(url, timeout=limit) as answer:
                return Ended.of(await answer.json())
        return None

    def _register(self) -> bool:
        """Make the handler known to the server, once both are up."""
        with suppress(requests.RequestException):
            body = {"uri": f"http://127.0.0.1:{self._port}"}
            self._registered = requests.post(f"{self._admin}/deployments", json=body, timeout=10).ok
        return self._registered
