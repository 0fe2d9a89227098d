"""Puts the Executor together: Envoy, the faults, the API, the sample services and their traffic."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import resource
import signal
import socket
import sys
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import uvicorn

from executor.app import create_app
from executor.clock import Clock
from executor.connections import MAX_WAITING, Connections
from executor.control_plane import ControlPlane, EnvoyError
from executor.envoy import Envoy
from executor.faults import FaultRegistry
from executor.injector import Injector
from executor.limits import BodyLimit
from executor.routes import RouteTable
from executor.sample_service import CALLED_THROUGH, SAMPLE_SERVICES, sample_service
from executor.store import Store
from executor.traces import span_receiver
from executor.traffic import Traffic

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator, Mapping
    from pathlib import Path

    from starlette.types import ASGIApp

    from executor.envoy_config import Address
    from executor.loopback import LoopbackServer

__all__ = ["Options", "serve"]

STOP_WITHIN_S = 2

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Options:
    """How to run it. A port 0 is any free one."""

    api: Address
    proxy: Address
    services: Mapping[str, Address]
    sample: bool
    traffic_rps: float
    token: str | None
    wait_for_answers_sec: float
    max_active_faults: int
    request_within_sec: float
    """How long a client of the API may take to send the head of a request, and how long to send its body."""

    state_dir: Path | None
    """What another Executor goes on with, its Envoy included. Without one, Envoy ends with the Executor."""


class _Api(uvicorn.Server):
    """Leaves signals to us, who have more to end than the API."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(options: Options, folder: Path) -> None:
    """Run until SIGTERM or SIGINT, which end all faults first.

    Raises `EnvoyError`, `OSError` if a port is taken, and `ValueError` or `sqlite3.Error` for a wrong folder.
    """
    async with AsyncExitStack() as stack:
        listener = stack.enter_context(_listener(options.api))
        services = dict(options.services)
        sample = sample_service()
        if options.sample:
            await _started(sample, stack)
            services |= dict.fromkeys(SAMPLE_SERVICES, sample.address)
        signals: set[int] = set()
        injector, envoy = await _data_plane(options, folder, services, signals, stack)
        sample.proxy = envoy.proxy
        if options.traffic_rps:
            called_through = CALLED_THROUGH if options.sample else {}
            traffic = Traffic(options.traffic_rps, envoy.proxy, injector.requests, called_through)
            await _in_background(traffic.run(), stack)
        app = create_app(injector, envoy, services, options.token)
        api = _Api(_bounded(app, options.request_within_sec))

        def end(number: int) -> None:
            signals.add(number)
            api.should_exit = True

        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, end, number)
        _say_ready(listener, envoy)
        await api.serve([listener])


def _bounded(app: ASGIApp, request_within_s: float) -> uvicorn.Config:
    """The API's server. No client holds up others, or a connection for longer than it may."""
    connections = Connections(request_within_s, min(MAX_WAITING, _open_files() // 2))
    return uvicorn.Config(
        connections.watched(BodyLimit(app, request_within_s)),
        http=connections.http,
        ws="none",  # a websocket would get out of the bounds
        proxy_headers=False,  # a client must not choose what it is known by
        log_level="warning",
        timeout_graceful_shutdown=STOP_WITHIN_S,
    )


async def _data_plane(
    options: Options,
    folder: Path,
    services: Mapping[str, Address],
    signals: set[int],
    stack: AsyncExitStack,
) -> tuple[Injector, Envoy]:
    """Envoy, and what injects faults into it. Its control plane and its receiver of spans are there first."""
    faults = FaultRegistry(options.max_active_faults)
    envoy = Envoy(folder, services, options.proxy, outlives=options.state_dir is not None)
    adopted = await envoy.adopt()
    store = Store(folder / "faults.sqlite3")
    stack.callback(store.close)
    spans = span_receiver(faults)
    await spans.start_on(envoy.files.spans)
    stack.push_async_callback(spans.stop)
    control = ControlPlane(envoy.files.control)
    stack.push_async_callback(control.stop)
    injector = Injector(
        envoy=envoy,
        control=control,
        table=RouteTable(services),
        faults=faults,
        store=store,
        clock=Clock(),
        wait_for_answers=timedelta(seconds=options.wait_for_answers_sec),
    )
    stack.push_async_callback(_leave, envoy, options, signals)
    await injector.start(adopted=adopted)
    stack.push_async_callback(injector.close)
    await _in_background(injector.watch(), stack)
    await _in_background(injector.run(), stack)
    stack.push_async_callback(_end_all, injector)
    return injector, envoy


async def _leave(envoy: Envoy, options: Options, signals: set[int]) -> None:
    """Envoy goes on for the next Executor, unless a person has ended this one with Ctrl-C."""
    if options.state_dir is None or signal.SIGINT in signals:
        await envoy.stop()
    else:
        await envoy.leave()


async def _end_all(injector: Injector) -> None:
    """No fault goes on without an Executor. An Envoy that does not answer drops them by itself."""
    try:
        await injector.end_all()
    except EnvoyError as exc:
        logger.error("faults were not taken away: %s", exc)  # noqa: TRY400


async def _started(server: LoopbackServer, stack: AsyncExitStack) -> LoopbackServer:
    await server.start()
    stack.push_async_callback(server.stop)
    return server


async def _in_background(work: Coroutine[object, object, None], stack: AsyncExitStack) -> None:
    task = asyncio.create_task(work)

    async def end() -> None:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    stack.push_async_callback(end)


def _open_files() -> int:
    """How many files this process may have open: from now on, as many as it is allowed to."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):  # macOS permits fewer than it says
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    permitted, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if permitted == resource.RLIM_INFINITY else permitted


def _listener(address: Address) -> socket.socket:
    """The API's socket, bound before anything is started that would have to be ended again."""
    try:
        return socket.create_server(address, backlog=1024)
    except OSError as exc:
        raise OSError(f"{address[0]}:{address[1]}: {exc.strerror}") from exc


def _say_ready(listener: socket.socket, envoy: Envoy) -> None:
    addresses = {
        "executor": _url(listener.getsockname()[:2]),
        "proxy": _url(envoy.proxy),
        "admin": str(envoy.files.admin),
        "envoy_pid": envoy.pid,
        "pid": os.getpid(),
    }
    print(json.dumps(addresses), flush=True)  # noqa: T201 (the person who started it reads this)


def _url(address: Address) -> str:
    host, port = address
    return f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}"  # noqa: S104 (to show it)
