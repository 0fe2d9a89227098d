"""The control plane, and a client that takes what it publishes when a test wants it to."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

import grpc
import pytest
from support.fake_plane import faults_on

from executor.control_plane import RESOURCE, ROUTES, RUNTIME, SERVICE, ControlPlane, EnvoyError
from executor.envoy_config import LAYER
from executor.routes import RouteTable
from executor.xds_pb2 import DiscoveryRequest, DiscoveryResponse, Resource, Runtime

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path
    from typing import Any

METHOD = f"/{SERVICE}/StreamAggregatedResources"
SOON_S = 3.0


def layer(*ids: str) -> Runtime:
    runtime = Runtime(name=LAYER)
    runtime.layer.update({f"on.{each}": 100 for each in ids})
    return runtime


class Client:
    """One stream of an Envoy."""

    def __init__(self, socket: Path) -> None:
        self._channel = grpc.aio.insecure_channel(f"unix:{socket}")

    async def __aenter__(self) -> Self:
        stream = self._channel.stream_stream(
            METHOD, DiscoveryRequest.SerializeToString, DiscoveryResponse.FromString
        )
        self._call = stream()
        for kind in (ROUTES, RUNTIME):
            await self._call.write(DiscoveryRequest(type_url=kind))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._call.cancel()
        await self._channel.close()

    async def next(self, kind: str) -> DiscoveryResponse:
        """The next response of the kind. All before it are taken."""
        while True:
            async with asyncio.timeout(SOON_S):
                response = await self._call.read()
            assert isinstance(response, DiscoveryResponse)
            if response.type_url == kind:
                return response
            await self.take(response)

    async def take(self, response: DiscoveryResponse) -> None:
        """Acknowledge it."""
        version, nonce = response.version_info, response.nonce
        taken = DiscoveryRequest(type_url=response.type_url, version_info=version, response_nonce=nonce)
        await self._call.write(taken)


def on(response: DiscoveryResponse) -> set[str]:
    [wrapped] = response.resources
    assert wrapped.type_url == RESOURCE
    resource = Resource.FromString(wrapped.value)
    assert resource.ttl.seconds
    return faults_on(Runtime.FromString(resource.resource.value))


def carry_out(
    folder: Path, scenario: Callable[[ControlPlane, Callable[[], Client]], Coroutine[Any, Any, None]]
) -> None:
    async def with_control() -> None:
        control = ControlPlane(folder / "control.sock")
        await control.start(RouteTable(["S"]).configuration([]), layer("a"))
        try:
            await scenario(control, lambda: Client(folder / "control.sock"))
        finally:
            await control.stop()

    asyncio.run(with_control())


async def take_all(control: ControlPlane, client: Client) -> None:
    """The client takes what is published at first."""
    await client.take(await client.next(RUNTIME))
    await control.taken()


async def soon(work: asyncio.Task[None]) -> None:
    async with asyncio.timeout(SOON_S):
        await work


def test_a_renewal_sends_the_layer_again_and_waits_for_its_acknowledgement(tmp_path: Path) -> None:
    async def scenario(control: ControlPlane, connect: Callable[[], Client]) -> None:
        async with connect() as client:
            await take_all(control, client)
            renewal = asyncio.create_task(control.renew())
            response = await client.next(RUNTIME)
            assert on(response) == {"a"}
            assert not renewal.done()
            await client.take(response)
            await soon(renewal)

    carry_out(tmp_path, scenario)


def test_an_envoy_that_connects_again_during_a_renewal_is_renewed(tmp_path: Path) -> None:
    async def scenario(control: ControlPlane, connect: Callable[[], Client]) -> None:
        async with connect() as client:
            await take_all(control, client)
            renewal = asyncio.create_task(control.renew())
            await client.next(RUNTIME)
        async with connect() as client:
            response = await client.next(RUNTIME)
            assert on(response) == {"a"}
            await client.take(response)
            await soon(renewal)

    carry_out(tmp_path, scenario)


def test_a_fault_that_is_taken_away_does_not_come_back_although_envoy_did_not_answer(tmp_path: Path) -> None:
    async def scenario(control: ControlPlane, connect: Callable[[], Client]) -> None:
        async with connect() as client:
            await take_all(control, client)
            removal = asyncio.create_task(control.publish(None, layer()))
            assert on(await client.next(RUNTIME)) == set()
            control.give_up("Envoy has ended")
            with pytest.raises(EnvoyError, match="Envoy has ended"):
                await soon(removal)
            again = asyncio.create_task(control.renew())
            response = await client.next(RUNTIME)
            assert on(response) == set()
            await client.take(response)
            await soon(again)

    carry_out(tmp_path, scenario)


def test_a_fault_that_does_not_begin_in_time_is_taken_back(tmp_path: Path) -> None:
    async def scenario(control: ControlPlane, connect: Callable[[], Client]) -> None:
        async with connect() as client:
            await take_all(control, client)
            routes = RouteTable(["S"]).configuration([])
            begin = asyncio.create_task(control.publish(routes, layer("a", "b")))
            assert on(await client.next(RUNTIME)) == {"a", "b"}
            control.give_up("Envoy has ended")
            with pytest.raises(EnvoyError):
                await soon(begin)
            assert on(await client.next(RUNTIME)) == {"a"}

    carry_out(tmp_path, scenario)
