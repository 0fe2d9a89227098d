"""A service and its clients, each a process of its own: both survive what happens to all others.

    python -m campaigns.dead_man.bystanders serve PORT     answers each request with 200
    python -m campaigns.dead_man.bystanders send PORT LOG  sends `RATE_PER_S` requests a second to a proxy

Half of the requests go to the targets of faults, and half to paths that never have one. The log has one line
for each request: when it was sent, when it was answered, its status (0 if it has no answer) and its path.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from benchmarks.stage.http import Connection, serve
from benchmarks.stage.plans import api

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["FAULTED", "OK", "SERVICE", "TARGETS", "Log", "Request", "answer_ok"]

SERVICE = "Target"
TARGETS = 16
"""How many paths have faults: those of the plans 0 to 15."""

RATE_PER_S = 200
PATIENCE_S = 10.0
OK = 200
FAULTED = 418
"""The status of an aborted request. The service itself never answers with it."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request. Times are in seconds since 1970."""

    sent: float
    answered: float
    status: int
    path: str

    @property
    def faulted(self) -> bool:
        """Whether a fault has hit it."""
        return self.status == FAULTED

    @property
    def failed(self) -> bool:
        """Whether it has failed, and not by a fault of its target."""
        plain = not self.path.startswith(api(0).rpartition("/")[0])
        return self.status != OK and (plain or not self.faulted)


class Log:
    """Reads the clients' log as it grows."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._offset = 0

    def news(self) -> list[Request]:
        """The requests that have ended since the last call."""
        if not self._file.exists():
            return []
        with self._file.open("rb") as log:
            log.seek(self._offset)
            whole, _, _ = log.read().rpartition(b"\n")
        if not whole:
            return []
        self._offset += len(whole) + 1
        return [_request(line) for line in whole.decode().split("\n")]


def _request(line: str) -> Request:
    sent, answered, status, path = line.split(" ")
    return Request(float(sent), float(answered), int(status), path)


async def answer_ok(path: str, query: str) -> int:
    """Every request gets 200 (`Service`)."""
    del path, query
    return OK


async def _serve(port: int) -> None:
    async with await serve(answer_ok, port) as server:
        await server.serve_forever()


async def _send(port: int, file: Path) -> None:
    """Send at a fixed rate, whether answers come or not. Runs until it is killed."""
    loop = asyncio.get_running_loop()
    idle: list[Connection] = []
    planned = loop.time()
    with file.open("a", buffering=1, encoding="utf-8") as log:
        async with asyncio.TaskGroup() as waiting:
            for path in _paths():
                waiting.create_task(_one(port, path, idle, log))
                planned += 1 / RATE_PER_S
                await asyncio.sleep(max(0.0, planned - loop.time()))


def _paths() -> Iterator[str]:
    for number in itertools.count():
        yield api(number // 2 % TARGETS) if number % 2 else f"/plain/{number % 100}"


async def _one(port: int, path: str, idle: list[Connection], log: TextIO) -> None:
    sent, status, answered = time.time(), 0, 0.0
    connection = None
    try:
        while idle and connection is None:
            candidate = idle.pop()
            connection = candidate if candidate.usable else None
        connection = connection or await Connection.to(("127.0.0.1", port))
        request = f"GET {path} HTTP/1.1\r\nhost: {SERVICE}\r\n\r\n".encode()
        status, answered = await connection.ask(request, PATIENCE_S), connection.answered
    except OSError:
        connection = None
    if connection is not None and connection.usable:
        idle.append(connection)
    log.write(f"{sent:.6f} {answered or time.time():.6f} {status} {path}\n")


def main() -> None:
    """Serve or send until killed."""
    what, port, *more = sys.argv[1:]
    asyncio.run(_serve(int(port)) if what == "serve" else _send(int(port), Path(more[0])))


if __name__ == "__main__":
    main()
