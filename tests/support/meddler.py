"""A proxy in front of an Executor that changes what goes through it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import requests
from support.loopback import LoopbackServer

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.loopback import Answer


@dataclass(frozen=True)
class Exchange:
    """A request, and the answer that it has got."""

    method: str
    path: str
    status: int
    body: bytes

    def with_body(self, body: bytes) -> Exchange:
        return replace(self, body=body)


@dataclass
class Meddler(LoopbackServer):
    """`keep_back` names request headers that do not get through, `swallow` methods that do not."""

    upstream: str
    meddle: Callable[[Exchange], Exchange] = lambda exchange: exchange
    keep_back: frozenset[str] = frozenset()
    swallow: dict[str, int] = field(default_factory=dict)

    def answer_bytes(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        done = self.exchange(method, path, headers, body)
        return done.status, done.body, "application/json"

    def exchange(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Exchange:
        if method in self.swallow:
            return Exchange(method, path, self.swallow[method], b"{}")
        passed = {
            name: value
            for name, value in headers.items()
            if name not in self.keep_back | {"host", "content-length", "connection"}
        }
        answer = requests.request(method, self.upstream + path, headers=passed, data=body, timeout=60)
        return self.meddle(Exchange(method, path, answer.status_code, answer.content))
