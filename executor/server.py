"""Puts the Executor together: Envoy, the faults, the API, the sample services and their traffic."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import uvicorn

from executor.app import create_app
from executor.envoy import Envoy
from executor.faults import FaultRegistry
from executor.injector import Injector
from executor.sample_service import CALLED_THROUGH, SAMPLE_SERVICES, sample_service
from executor.traces import span_receiver
from executor.traffic import Traffic

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator, Mapping
    from pathlib import Path

    from executor.envoy_config import Address
    from executor.loopback import LoopbackServer

__all__ = ["Options", "serve"]

STOP_WITHIN_S = 2


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


class _Api(uvicorn.Server):
    """Leaves signals to us, who have more to end than the API."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(options: Options, folder: Path) -> None:
    """Run until SIGTERM or SIGINT. Raises `EnvoyError`, and `OSError` if a port is taken."""
    async with AsyncExitStack() as stack:
        listener = stack.enter_context(_listener(options.api))
        services = dict(options.services)
        sample = sample_service()
        if options.sample:
            await _started(sample, stack)
            services |= dict.fromkeys(SAMPLE_SERVICES, sample.address)
        injector, envoy = await _data_plane(options, folder, services, stack)
        sample.proxy = envoy.proxy
        if options.traffic_rps:
            called_through = CALLED_THROUGH if options.sample else {}
            traffic = Traffic(options.traffic_rps, envoy.proxy, injector.targets, called_through)
            await _in_background(traffic.run(), stack)
        app = create_app(injector, envoy, services, options.token)
        api = _Api(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=STOP_WITHIN_S))
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, setattr, api, "should_exit", True)
        _say_ready(listener, envoy)
        await api.serve([listener])


async def _data_plane(
    options: Options, folder: Path, services: Mapping[str, Address], stack: AsyncExitStack
) -> tuple[Injector, Envoy]:
    """Envoy, and who injects faults into it. Where its spans go must be known before it starts."""
    faults = FaultRegistry()
    spans = await _started(span_receiver(faults), stack)
    envoy = Envoy(folder, services, options.proxy, spans.address)
    injector = Injector(envoy, faults, timedelta(seconds=options.wait_for_answers_sec))
    stack.push_async_callback(envoy.stop)
    await envoy.start()
    stack.push_async_callback(injector.close)
    await _in_background(injector.watch(), stack)
    return injector, envoy


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
        "admin": f"http://{envoy.admin}",
        "envoy_pid": envoy.pid,
        "pid": os.getpid(),
    }
    print(json.dumps(addresses), flush=True)  # noqa: T201 (the person who started it reads this)


def _url(address: Address) -> str:
    host, port = address
    return f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}"  # noqa: S104 (to show it)
