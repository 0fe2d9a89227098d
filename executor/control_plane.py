"""Envoy's control plane: one route configuration and one runtime layer (aggregated xDS, state of the world).

The runtime layer has a time to live. Unless it is renewed, Envoy drops it by itself, and every fault with it.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration

from executor.envoy_config import LAYER
from executor.xds_pb2 import DiscoveryRequest, DiscoveryResponse, Resource, Runtime

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from executor.xds_pb2 import RouteConfiguration

    _Context = grpc.aio.ServicerContext[DiscoveryRequest, DiscoveryResponse]

__all__ = ["TTL_S", "ControlPlane", "EnvoyError", "RefusedError"]

TTL_S = 3.0
"""How long Envoy keeps faults on without a renewal."""

TTL = Duration()
TTL.FromTimedelta(timedelta(seconds=TTL_S))

TAKEN_WITHIN_S = 5.0
LONGEST_REASON = 300

SERVICE = "envoy.service.discovery.v3.AggregatedDiscoveryService"
RESOURCE = "type.googleapis.com/envoy.service.discovery.v3.Resource"
ROUTES = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
RUNTIME = "type.googleapis.com/envoy.service.runtime.v3.Runtime"


class EnvoyError(Exception):
    """Envoy did not start, ended by itself, or does not answer."""


class RefusedError(EnvoyError):
    """Envoy refused a configuration, and keeps the one that it had."""


@dataclass(slots=True)
class _Published:
    """What is published of one kind, and what Envoy says of it."""

    message: RouteConfiguration | Runtime
    version: str
    taken: asyncio.Future[None] = field(default_factory=asyncio.Future)
    """Done once Envoy has taken it. Its exception is `RefusedError` if Envoy refused it."""


@dataclass(frozen=True, slots=True)
class _Sent:
    """A response that Envoy has not answered yet."""

    version: str
    renewal: asyncio.Future[None] | None
    """What is done once Envoy has taken the response, if that renews the runtime layer."""


class ControlPlane:
    """Serves one Envoy, on a Unix socket. One coroutine at a time may publish or renew."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        epoch = time.time_ns()  # Envoy may have versions from before a restart
        self._versions = (f"{epoch}.{number}" for number in itertools.count())
        self._published: dict[str, _Published] = {}
        self._sent: dict[str, _Sent] = {}
        """The responses that are under way, by their nonces."""

        self._stream: asyncio.Queue[DiscoveryResponse] | None = None
        self._renewal: asyncio.Future[None] | None = None
        self._fresh_until = math.inf
        """Until when Envoy may still have the runtime layer. One that has lapsed does not come back."""

        self._server = grpc.aio.server()

    async def start(self, routes: RouteConfiguration, runtime: Runtime) -> None:
        """Listen, with `routes` and `runtime` ready for Envoy."""
        self.begin_with(routes, runtime)
        stream = grpc.stream_stream_rpc_method_handler(
            self._serve, DiscoveryRequest.FromString, DiscoveryResponse.SerializeToString
        )
        handler = grpc.method_handlers_generic_handler(SERVICE, {"StreamAggregatedResources": stream})
        self._server.add_generic_rpc_handlers((handler,))
        self._server.add_insecure_port(f"unix:{self._socket}")
        await self._server.start()

    def begin_with(self, routes: RouteConfiguration, runtime: Runtime) -> None:
        """Have `routes` and `runtime` ready for an Envoy that is about to start."""
        self._published = {
            ROUTES: _Published(routes, next(self._versions)),
            RUNTIME: _Published(runtime, next(self._versions)),
        }
        self._fresh_until = math.inf

    async def taken(self) -> None:
        """Wait until Envoy has taken all that is published. Raises `EnvoyError`."""
        await self._within(*(each.taken for each in self._published.values()))

    async def stop(self) -> None:
        """End. Envoy keeps its routes, and drops the runtime layer within `TTL_S`."""
        await self._server.stop(grace=None)

    async def publish(self, routes: RouteConfiguration | None, runtime: Runtime | None) -> None:
        """Have Envoy take both; None is for what has not changed. Returns once both are in force.

        Raises `RefusedError` if Envoy refuses one, and `EnvoyError` if it does not answer in time. Then new
        routes are taken back. A runtime layer without routes is kept: what it removes does not come back.
        """
        before = dict(self._published)
        for kind, message in ((ROUTES, routes), (RUNTIME, runtime)):
            if message is not None:
                self._published[kind] = _Published(message, next(self._versions))
                self._send(kind)
        try:
            await self._within(*(each.taken for each in self._published.values()))
        except BaseException:
            if routes is not None:
                self._restore(before)
            raise

    async def renew(self) -> None:
        """Have Envoy keep the runtime layer for another `TTL_S`. Raises `EnvoyError`.

        The layer is sent again: Envoy 1.40 does not take a resource without content as a renewal.
        """
        self._renewal = asyncio.get_running_loop().create_future()
        self._send(RUNTIME)
        await self._within(self._renewal)

    def give_up(self, reason: str) -> None:
        """All calls that wait for Envoy raise `EnvoyError`, because Envoy has ended."""
        for waiting in (self._renewal, *(each.taken for each in self._published.values())):
            _settle(waiting, EnvoyError(reason))

    async def _serve(self, requests: AsyncIterator[DiscoveryRequest], context: _Context) -> None:
        """Envoy's stream: it subscribes to both kinds, and acknowledges or refuses each response."""
        outbox: asyncio.Queue[DiscoveryResponse] = asyncio.Queue()
        self._stream, self._sent = outbox, {}
        writing = asyncio.create_task(_write(outbox, context))
        try:
            async for request in requests:
                self._take(request)
        finally:
            writing.cancel()
            with suppress(asyncio.CancelledError):
                await writing
            if self._stream is outbox:
                self._stream = None

    def _take(self, request: DiscoveryRequest) -> None:
        kind = request.type_url
        if kind not in self._published:
            return
        if not request.response_nonce:  # it subscribes
            if kind == RUNTIME and time.monotonic() > self._fresh_until:
                self._published[kind] = _Published(Runtime(name=LAYER), next(self._versions))
            self._send(kind)
            return
        sent = self._sent.pop(request.response_nonce, None)
        if kind == RUNTIME:
            self._fresh_until = time.monotonic() + TTL_S
        if sent is None:
            return
        refused = RefusedError(_reason(request)) if request.HasField("error_detail") else None
        _settle(sent.renewal, refused)
        if sent.version == self._published[kind].version:
            _settle(self._published[kind].taken, refused)

    def _send(self, kind: str) -> None:
        """Put what is published into Envoy's stream. Without one, Envoy gets it once it connects."""
        if self._stream is not None:
            published = self._published[kind]
            response = _response(kind, published)
            response.nonce = next(self._versions)
            renewal = self._renewal if kind == RUNTIME else None
            self._sent[response.nonce] = _Sent(published.version, renewal)
            self._stream.put_nowait(response)

    def _restore(self, before: dict[str, _Published]) -> None:
        """Publish what was there before, under new versions."""
        for kind, each in before.items():
            if self._published[kind] is not each:
                self._published[kind] = _Published(each.message, next(self._versions))
                self._send(kind)

    async def _within(self, *answers: asyncio.Future[None]) -> None:
        try:
            async with asyncio.timeout(TAKEN_WITHIN_S):
                for answer in answers:
                    await asyncio.shield(answer)
        except TimeoutError as exc:
            raise EnvoyError("Envoy did not take its configuration in time") from exc


async def _write(outbox: asyncio.Queue[DiscoveryResponse], context: _Context) -> None:
    while True:
        await context.write(await outbox.get())


def _response(kind: str, published: _Published) -> DiscoveryResponse:
    resource = AnyMessage(type_url=kind, value=published.message.SerializeToString())
    if kind == RUNTIME:
        name, version = published.message.name, published.version
        wrapped = Resource(name=name, version=version, resource=resource, ttl=TTL)
        resource = AnyMessage(type_url=RESOURCE, value=wrapped.SerializeToString())
    return DiscoveryResponse(version_info=published.version, type_url=kind, resources=[resource])


def _reason(request: DiscoveryRequest) -> str:
    """Envoy puts the whole configuration before the reason."""
    last = request.error_detail.message.strip().rsplit("\n", 1)[-1][-LONGEST_REASON:]
    return f"Envoy refused its configuration: {last}"


def _settle(answer: asyncio.Future[None] | None, error: Exception | None) -> None:
    if answer is None or answer.done():
        return
    if error is None:
        answer.set_result(None)
    else:
        answer.set_exception(error)
        answer.exception()  # it is not missed if no caller is left
