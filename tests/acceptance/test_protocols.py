"""gRPC, WebSockets and streams through the reference Executor."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import aiohttp
import grpc
import pytest
import requests
from support.envoy_admin import ask_envoy
from support.eventually import eventually
from support.grpc_service import GrpcCalls, GrpcService
from support.plans import abort_plan
from support.processes import ExecutorProcess
from support.streams import Streams

from dispatcher import RawObservation

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from support.processes import Workers

    from dispatcher import Dispatcher

CALLED, STREAMING = "Greeter", "Ticker"
SHARE = 0.3
WIDER = 2.5
"""The 95 % interval, so many times as wide, misses the share in one run of a million."""

FAULTS = 5

A_MINUTE_S = 60.0
EVENTS_FOR_EACH_CHANGE = 20
"""A second of events, which keeps the test from using the processor that others need."""


@pytest.fixture(scope="module")
def calls() -> Iterator[GrpcService]:
    with GrpcService() as service:
        yield service


@pytest.fixture(scope="module")
def streams() -> Iterator[Streams]:
    with Streams() as service:
        yield service


@pytest.fixture(scope="module")
def proxied(
    calls: GrpcService, streams: Streams, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ExecutorProcess]:
    """An Executor in front of both services."""
    log = tmp_path_factory.mktemp("protocols") / "executor.log"
    ports = {CALLED: calls.port, STREAMING: streams.port}
    services = [f"--service={name}=127.0.0.1:{port}" for name, port in ports.items()]
    with ExecutorProcess(log, *services, traffic_rps=0, sample=False) as process:
        yield process


def test_a_share_of_one_grpc_method_is_unavailable_and_observed_as_that_share(
    proxied: ExecutorProcess, start: Workers, dispatcher: Dispatcher
) -> None:
    start(proxied.url)
    method, other = "Method", "Other"
    with GrpcCalls(proxied.proxy, CALLED) as client:
        eventually(lambda: client.codes[other][grpc.StatusCode.OK])
        plan = abort_plan(
            service=CALLED, api=f"/pkg.Service/{method}", percentage=int(SHARE * 100), duration_seconds=3
        )
        seen = dispatcher.submit(plan, timeout_sec=60).result(60)
    assert isinstance(seen, RawObservation)
    assert seen.error_rate is not None
    assert seen.error_rate_low is not None
    assert seen.error_rate_high is not None
    low, high = seen.error_rate_low, seen.error_rate_high
    assert abs(SHARE - seen.error_rate) <= (high - low) / 2 * WIDER
    codes = client.codes[method]
    assert set(codes) == {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}
    assert seen.error_count == codes[grpc.StatusCode.UNAVAILABLE]
    assert set(client.codes[other]) == {grpc.StatusCode.OK}


GRPC_STATUSES = {
    400: grpc.StatusCode.INTERNAL,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.UNIMPLEMENTED,
    429: grpc.StatusCode.UNAVAILABLE,
    500: grpc.StatusCode.UNKNOWN,
    502: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.UNAVAILABLE,
}


def test_an_aborted_grpc_call_gets_the_grpc_status_that_belongs_to_the_http_status(
    proxied: ExecutorProcess,
) -> None:
    found = {}
    with GrpcCalls(proxied.proxy, CALLED) as client:
        for status in GRPC_STATUSES:
            body = abort_body(CALLED, "/pkg.Service/Method", status)
            apply_id = requests.post(f"{proxied.url}/v1/faults/apply", json=body, timeout=60).json()[
                "apply_id"
            ]
            client.codes["Method"].clear()
            eventually(lambda: set(client.codes["Method"]) - {grpc.StatusCode.OK})
            requests.delete(f"{proxied.url}/v1/faults/{apply_id}", timeout=60)
            [found[status]] = set(client.codes["Method"]) - {grpc.StatusCode.OK}
    assert found == GRPC_STATUSES


@pytest.mark.lasts_long
def test_a_websocket_and_a_stream_survive_a_minute_of_faults_on_other_routes(
    proxied: ExecutorProcess,
) -> None:
    """In real time: some time-outs of a proxy would cut them only after 15 s or more."""

    async def scenario() -> tuple[list[int], int]:
        events, changes = [], 0
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as session,
            session.ws_connect(f"{proxied.proxy}/echo", headers={"Host": STREAMING}) as socket,
            session.get(f"{proxied.proxy}/events", headers={"Host": STREAMING}) as stream,
        ):
            over_at = asyncio.get_running_loop().time() + A_MINUTE_S
            while asyncio.get_running_loop().time() < over_at:
                async for _ in faults(session, proxied, "/other"):
                    changes += 1
                    events += [await next_event(stream) for _ in range(EVENTS_FOR_EACH_CHANGE)]
                    await socket.send_str(f"change {changes}")
                    assert await socket.receive_str(timeout=30) == f"change {changes}"
        return events, changes

    events, changes = asyncio.run(scenario())
    assert events == list(range(changes * EVENTS_FOR_EACH_CHANGE))
    assert changes >= FAULTS * 2


def test_a_websocket_that_stays_open_is_a_success_of_the_fault_during_which_it_was_opened(
    proxied: ExecutorProcess,
) -> None:
    async def scenario() -> dict[str, Any]:
        url = f"{proxied.url}/v1/faults"
        body = abort_body(STREAMING, "/echo", 503) | {"percentage": 0}
        async with aiohttp.ClientSession() as session:
            async with session.post(f"{url}/apply", json=body) as answer:
                apply_id = (await answer.json())["apply_id"]
            async with session.ws_connect(f"{proxied.proxy}/echo", headers={"Host": STREAMING}) as socket:
                async with session.delete(f"{url}/{apply_id}") as answer:
                    assert answer.ok
                async with session.get(f"{url}/{apply_id}/metrics") as answer:
                    metrics = dict(await answer.json())
                await socket.send_str("still open")
                assert await socket.receive_str(timeout=30) == "still open"
        return metrics

    metrics = asyncio.run(scenario())
    assert (metrics["requests"], metrics["success_count"], metrics["unfinished"]) == (1, 1, 0)
    assert (metrics["status_code"], metrics["error_rate"]) == (101, 0.0)


def test_a_stream_of_events_goes_on_while_faults_begin_and_end_on_its_own_route(
    proxied: ExecutorProcess,
) -> None:
    async def scenario() -> list[int]:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{proxied.proxy}/events", headers={"Host": STREAMING}) as stream,
        ):
            return [await next_event(stream) async for _ in faults(session, proxied, "/events")]

    assert asyncio.run(scenario()) == list(range(FAULTS * 2))


def test_no_route_and_no_connection_has_a_time_after_which_a_stream_is_cut(proxied: ExecutorProcess) -> None:
    async def scenario() -> list[str]:
        async with aiohttp.ClientSession() as session:
            return [
                await asyncio.to_thread(ask_envoy, proxied.admin, "/config_dump")
                async for _ in faults(session, proxied, "/events")
            ]

    dump = json.loads(asyncio.run(scenario())[0])
    routes = [route for route in found(dump, "route") if "cluster" in route]
    assert len(routes) >= 4, "two plain ones, and two of the fault"
    assert {(route.get("timeout"), route.get("idle_timeout")) for route in routes} == {("0s", "0s")}
    assert set(found(dump, "stream_idle_timeout")) == {"0s"}


async def faults(session: aiohttp.ClientSession, executor: ExecutorProcess, api: str) -> AsyncIterator[None]:
    """Let faults begin and end, one after the other, with a moment after each change."""
    body = abort_body(STREAMING, api, 503)
    url = f"{executor.url}/v1/faults"
    for _ in range(FAULTS):
        async with session.post(f"{url}/apply", json=body) as answer:
            apply_id = (await answer.json())["apply_id"]
        try:
            async with session.get(executor.proxy + api, headers={"Host": STREAMING}) as answer:
                assert answer.status == 503
            yield
        finally:
            async with session.delete(f"{url}/{apply_id}") as answer:
                assert answer.ok
        yield


def abort_body(service: str, api: str, status: int) -> dict[str, Any]:
    return {
        "service": service,
        "api": api,
        "fault_type": "abort",
        "percentage": 100,
        "duration_seconds": 60,
        "fault_config": {"http_status": status},
    }


async def next_event(stream: aiohttp.ClientResponse) -> int:
    line = (await stream.content.readuntil(b"\n\n")).decode()
    return int(line.removeprefix("data: "))


def found(part: Any, name: str) -> Iterator[Any]:
    """All values of this name, wherever they are."""
    if isinstance(part, dict):
        for key, value in part.items():
            if key == name:
                yield value
            yield from found(value, name)
    elif isinstance(part, list):
        for value in part:
            yield from found(value, name)
