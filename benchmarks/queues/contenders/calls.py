"""The three calls of a plan, as peers make them: over one session for each process."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

import aiohttp
import requests
from requests.adapters import HTTPAdapter

REDIS = os.environ.get("PEER_REDIS", "redis://127.0.0.1:6379/0")
EXECUTOR = os.environ.get("PEER_EXECUTOR", "http://127.0.0.1:8000")
FAULTS = "/v1/faults"
POLL_S = 0.5


class Calls:
    """For threads, by requests."""

    def __init__(self, threads: int, timeouts_s: tuple[float, float] = (5, 30)) -> None:
        self._timeouts_s = timeouts_s
        self._session = requests.Session()
        self._session.mount("http://", HTTPAdapter(pool_maxsize=threads))

    def apply(self, plan: dict[str, Any]) -> str:
        """Apply the fault. Returns its id."""
        return str(self._ask("POST", "apply", json=plan)["apply_id"])

    def observe(self, apply_id: str) -> dict[str, Any] | None:
        """The metrics, and the time. None while the fault runs."""
        if self._ask("GET", f"{apply_id}/status")["status"] == "running":
            return None
        return {**self._ask("GET", f"{apply_id}/metrics"), "ended_at": time.time()}

    def _ask(self, method: str, path: str, **options: Any) -> Any:
        answer = self._session.request(
            method, f"{EXECUTOR}{FAULTS}/{path}", timeout=self._timeouts_s, **options
        )
        answer.raise_for_status()
        return answer.json()


class AsyncCalls:
    """For coroutines, by aiohttp. The session is opened by the first call."""

    _session: aiohttp.ClientSession | None = None

    async def apply(self, plan: dict[str, Any], key: str = "") -> str:
        """Apply the fault, once for each key. Returns its id."""
        headers = {"Idempotency-Key": key} if key else {}
        async with self._open().post(f"{FAULTS}/apply", json=plan, headers=headers) as answer:
            return str((await answer.json())["apply_id"])

    async def observe(self, apply_id: str) -> dict[str, Any]:
        """Poll until the fault is over. Returns the metrics, and the time."""
        session = self._open()
        while True:
            async with session.get(f"{FAULTS}/{apply_id}/status") as answer:
                if (await answer.json())["status"] != "running":
                    break
            await asyncio.sleep(POLL_S)
        async with session.get(f"{FAULTS}/{apply_id}/metrics") as answer:
            return {**await answer.json(), "ended_at": time.time()}

    async def close(self) -> None:
        """Close the session."""
        if self._session is not None:
            await self._session.close()

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(EXECUTOR, raise_for_status=True)
        return self._session
