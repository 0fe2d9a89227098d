"""The faults API of Executors that inject nothing. What they know of a fault is their own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class Fault(Protocol):
    """What every Executor knows."""

    apply_id: str


F = TypeVar("F", bound=Fault)

answer = web.json_response


class FaultsApi(ABC, Generic[F]):
    """Applies each key once, and answers about the faults that it knows. Without a key, a fault is new."""

    bases: tuple[str, ...] = ("",)
    """Prefixes of paths below which the API is."""

    def __init__(self) -> None:
        self.faults: dict[str, F] = {}
        """By their ids, in the order of their applies."""

        self.by_key: dict[str, F] = {}

    def app(self, **options: Any) -> web.Application:
        """The application, with more options of aiohttp."""
        app = web.Application(**options)
        for base in self.bases:
            app.router.add_get(f"{base}/v1/health", self._health)
            app.router.add_post(f"{base}/v1/faults/apply", self._apply)
            app.router.add_get(f"{base}/v1/faults/{{id}}/status", self._about(self.status))
            app.router.add_get(f"{base}/v1/faults/{{id}}/metrics", self._about(self.metrics))
            app.router.add_delete(f"{base}/v1/faults/{{id}}", self._about(self.stop))
        return app

    @abstractmethod
    def begin(self, apply_number: int, key: str, body: dict[str, Any], path: str) -> F:
        """A new fault. Its id has to be unique, by the number of applies before it."""

    @abstractmethod
    async def status(self, fault: F) -> web.Response:
        """The answer about its status."""

    @abstractmethod
    async def metrics(self, fault: F) -> web.Response:
        """The answer about its metrics."""

    @abstractmethod
    async def stop(self, fault: F) -> web.Response:
        """The answer to a stop."""

    def forgotten(self, fault: F) -> bool:
        """Whether the key of a fault begins another one."""
        del fault
        return False

    async def _health(self, _: web.Request) -> web.Response:
        return answer({"status": "healthy"})

    async def _apply(self, request: web.Request) -> web.Response:
        body, key = await request.json(), request.headers.get("Idempotency-Key", "")
        fault = self.by_key.get(key)
        if fault is None or self.forgotten(fault):
            fault = self.begin(len(self.faults), key, body, request.path)
            self.faults[fault.apply_id] = fault
            if key:
                self.by_key[key] = fault
        return answer({"apply_id": fault.apply_id, "status": "applied"})

    def _about(
        self, respond: Callable[[F], Awaitable[web.Response]]
    ) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def about(request: web.Request) -> web.Response:
            fault = self.faults.get(request.match_info["id"])
            if fault is None:
                raise web.HTTPNotFound
            return await respond(fault)

        return about


def serve(app: web.Application, port: int) -> None:
    """Serve on loopback until killed."""
    web.run_app(app, host="127.0.0.1", port=port, print=None, access_log=None, reuse_address=True)
