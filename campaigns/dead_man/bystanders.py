"""Clients of the service, in a thread: they go on while all others are killed.

Half of their requests go to the targets of faults, and half to paths that never have one.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from typing import TYPE_CHECKING, Self

from benchmarks.stage.commands import until
from benchmarks.stage.plans import SERVICE, api
from campaigns.traffic import Clients

if TYPE_CHECKING:
    from collections.abc import Iterator

    from campaigns.traffic import Request

TARGETS = 16
"""How many paths have faults: those of the plans 0 to 15."""

RATE_PER_S = 200
PATIENCE_S = 10.0
OK = 200
FAULTED = 418
"""The status of an aborted request. The service itself never answers with it."""

PLAIN = "/plain"


class Bystanders:
    """Sends `RATE_PER_S` requests a second through a proxy, from its context on."""

    def __init__(self, proxy_port: int) -> None:
        self._clients = Clients(("127.0.0.1", proxy_port), SERVICE, _targets(), RATE_PER_S, PATIENCE_S)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        until(lambda: any(request.status == OK for request in self.ended()))
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join()

    def _run(self) -> None:
        self._task = self._loop.create_task(self._clients.run())
        self._loop.run_until_complete(self._task)
        self._loop.close()

    def forget(self) -> None:
        """Drop the requests that have ended."""
        del self._clients.requests[: len(self.ended())]

    def ended(self) -> list[Request]:
        """The requests that have ended, in the order of sending, up to the first that has not."""
        return list(itertools.takewhile(lambda each: each.status is not None, list(self._clients.requests)))

    def hit(self, since: float, before: float) -> list[Request]:
        """Requests that met a fault, and were sent between two moments."""
        requests = list(self._clients.requests)
        return [each for each in requests if each.status == FAULTED and since < each.sent < before]

    @staticmethod
    def failed(request: Request) -> bool:
        """Whether a request has failed, and not by a fault of its target."""
        return request.status != OK and (request.path.startswith(PLAIN) or request.status != FAULTED)


def _targets() -> Iterator[str]:
    for number in itertools.count():
        yield api(number // 2 % TARGETS) if number % 2 else f"{PLAIN}/{number % 100}"
