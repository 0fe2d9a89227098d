"""The service behind the proxy: it answers after the time that the request asks for, and counts arrivals."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

if TYPE_CHECKING:
    from campaigns.calibration.dose import Window

__all__ = ["SampleService", "answer_s"]


class SampleService:
    """Answers `GET /path?ms=20` with 200 after 20 ms."""

    def __init__(self) -> None:
        self._arrivals: defaultdict[str, list[float]] = defaultdict(list)

    async def __call__(self, path: str, query: str) -> int:
        """See `Service`."""
        self._arrivals[path].append(time.time())
        await asyncio.sleep(answer_s(query))
        return 200

    def arrived(self, path: str, window: Window) -> int:
        """How many requests for the path arrived in the window."""
        began, ended = window
        return sum(began <= at <= ended for at in self._arrivals[path])


def answer_s(query: str) -> float:
    """How long the API takes, as a request asks for it."""
    return int(parse_qs(query)["ms"][0]) / 1000
