"""A service of the test's own, as a target of probes."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from support.loopback import LoopbackServer

if TYPE_CHECKING:
    from support.loopback import Answer


@dataclass(frozen=True)
class Call:
    """One request that arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    at: float


class Service(LoopbackServer):
    """Answers each path with its status in `statuses` (otherwise 200), once `let_go` is set."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.statuses: dict[str, list[int]] = {}
        """For each path, what its next requests get. The last one remains."""

        self.content = b"{}"
        self.let_go = threading.Event()
        self.let_go.set()

    def __exit__(self, *exc_info: object) -> None:
        self.let_go.set()
        super().__exit__(*exc_info)

    def answer_bytes(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        self.calls.append(Call(method, path, headers, body, time.monotonic()))
        self.let_go.wait(60)
        statuses = self.statuses.get(path, [200])
        status = statuses.pop(0) if len(statuses) > 1 else statuses[0]
        return status, self.content, "application/json"
