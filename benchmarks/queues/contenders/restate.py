"""Restate: a handler of two journaled actions and a durable sleep, served by hypercorn.

Hypercorn has a process for each worker, uvloop, and the limits that Restate's page about serving
recommends. The server has its defaults, except that an action is written to its log without waiting for the
disk, like Redis's file.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import urllib.request
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Self

import aiohttp
import restate
import uvloop

from benchmarks.queues.contenders.base import Base, Ended, program
from benchmarks.queues.contenders.calls import AsyncCalls
from benchmarks.stage import until
from benchmarks.stage.processes import Command, free_port

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Contender", "app", "carry_out"]

AT_ONCE = 200
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


class Contender(Base):
    """Hypercorn with its processes, the server, and a client in one event loop."""

    def workers(self, count: int, in_flight: int) -> list[Command]:
        del in_flight  # there is no limit
        config = self.stage.folder / "hypercorn.toml"
        limits = ("h2_max_concurrent_streams", "keep_alive_max_requests", "keep_alive_timeout")
        lines = [f'bind = "127.0.0.1:{self._port}"', f"workers = {count}", 'worker_class = "uvloop"']
        config.write_text("\n".join([*lines, *(f"{name} = {LIMIT}" for name in limits)]), "utf-8")
        return [Command([sys.executable, "-m", "hypercorn", "--config", str(config), f"{__name__}:app"])]

    def __enter__(self) -> Self:
        self._port, node, self._admin, ingress = (free_port() for _ in range(4))
        self._ingress = f"http://127.0.0.1:{ingress}"
        self.stage.add_servers([Command([str(program("restate-server"))], self._settings(node, ingress))])
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self._session = self._runner.run(_session())
        self._registered = False
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._runner.run(self._session.close())
        self._runner.close()

    def submit_many(self, plans: Sequence[Any]) -> list[str]:
        if not self._registered:
            until(self._register)
        return self._runner.run(self._all(self._send, plans))

    def endings(self, submitted: Sequence[Any], timeout_s: float = 0) -> list[Ended | None]:
        return self._runner.run(self._all(lambda each: self._ended(each, timeout_s or 1.0), submitted))

    async def _all(self, ask: Any, what: Sequence[Any]) -> list[Any]:
        return await asyncio.gather(*map(ask, what))

    async def _send(self, plan: Any) -> str:
        headers = {"idempotency-key": os.urandom(16).hex()}
        async with self._session.post(
            f"{self._ingress}/Plans/carry_out/send", json=plan, headers=headers
        ) as answer:
            return str((await answer.json())["invocationId"])

    async def _ended(self, invocation: str, timeout_s: float) -> Ended | None:
        """`attach` blocks until the result is there."""
        url, limit = (
            f"{self._ingress}/restate/invocation/{invocation}/attach",
            aiohttp.ClientTimeout(timeout_s),
        )
        with suppress(TimeoutError, aiohttp.ClientResponseError):
            async with self._session.get(url, timeout=limit) as answer:
                return Ended.of(await answer.json())
        return None

    def _register(self) -> bool:
        """Make the handler known to the server, once both are up."""
        body = json.dumps({"uri": f"http://127.0.0.1:{self._port}"}).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._admin}/deployments", body, {"content-type": "application/json"}
        )
        with suppress(OSError), urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 (ours)
            self._registered = answer.status in {200, 201}
        return self._registered

    def _settings(self, node: int, ingress: int) -> dict[str, str]:
        return {
            "RESTATE_BASE_DIR": str(self.stage.folder / "restate"),
            "RESTATE_NODE_NAME": "one",
            "RESTATE_LISTEN_MODE": "tcp",
            "RESTATE_BIND_ADDRESS": f"127.0.0.1:{node}",
            "RESTATE_ADVERTISED_ADDRESS": f"http://127.0.0.1:{node}",
            "RESTATE_ADMIN__BIND_ADDRESS": f"127.0.0.1:{self._admin}",
            "RESTATE_INGRESS__BIND_ADDRESS": f"127.0.0.1:{ingress}",
            "RESTATE_LOG_SERVER__ROCKSDB_DISABLE_WAL_FSYNC": "true",
            "RESTATE_LOG_FILTER": "error",
            "RESTATE_DISABLE_TELEMETRY": "true",
            "DO_NOT_TRACK": "1",
        }


async def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=AT_ONCE), raise_for_status=True)
