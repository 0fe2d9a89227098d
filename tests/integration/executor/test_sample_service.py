"""The sample services cope with errors of what they call, and not with its slowness: the weakness to find."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeAlias

import aiohttp
import pytest
from aiohttp import web

from executor.contract import FaultApply
from executor.loopback import LoopbackServer
from executor.sample_service import CALLED_THROUGH, SampleService, sample_service
from executor.traffic import Traffic

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

CHECKOUT = ("OrderService", "/api/v1/checkout")
STOCK = ("InventoryService", "/api/v1/stock")


Behaviour: TypeAlias = "Callable[[asyncio.Event], Awaitable[web.Response]]"
"""Gets what is set once the test is over."""


def answers(status: int) -> Behaviour:
    async def answer(_: asyncio.Event) -> web.Response:
        return web.json_response({}, status=status)

    return answer


async def hangs(over: asyncio.Event) -> web.Response:
    await over.wait()
    return web.json_response({})


async def get(sample: SampleService, target: tuple[str, str]) -> tuple[int, dict[str, object]]:
    service, path = target
    url = f"http://{sample.address[0]}:{sample.address[1]}{path}"
    headers = {"Host": service, "x-test-run": "42", "x-request-id": "mine"}
    async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as answer:
        return answer.status, await answer.json()


def asked(behaviour: Behaviour, target: tuple[str, str]) -> tuple[int, dict[str, object], list[str]]:
    """What the sample service answers while InventoryService behaves like that, and who was called."""

    async def scenario() -> tuple[int, dict[str, object], list[str]]:
        called: list[str] = []
        over = asyncio.Event()

        async def play_inventory(request: web.Request) -> web.Response:
            called.append(f"{request.host} {request.path}")
            assert request.headers["x-test-run"] == "42", "who calls it is known there"
            assert "x-request-id" not in request.headers
            return await behaviour(over)

        sample, proxy = sample_service(), LoopbackServer("/api/", play_inventory)
        await sample.start()
        await proxy.start()
        sample.proxy = proxy.address
        try:
            return *await get(sample, target), called
        finally:
            over.set()
            await sample.stop()
            await proxy.stop()

    return asyncio.run(scenario())


@pytest.mark.parametrize(("status", "promised"), [(200, True), (503, False), (404, False)])
def test_a_checkout_copes_with_an_error_of_what_it_calls(status: int, promised: bool) -> None:  # noqa: FBT001
    code, body, called = asked(answers(status), CHECKOUT)
    assert (code, body["date_promised"]) == (200, promised)
    assert called == [" ".join(STOCK)]


def test_a_checkout_fails_if_what_it_calls_is_slow() -> None:
    code, body, _ = asked(hangs, CHECKOUT)
    assert (code, body["error"]) == (504, "InventoryService has no answer")


def test_all_other_paths_call_nothing() -> None:
    assert asked(hangs, STOCK)[0] == 200
    assert asked(hangs, ("OrderService", "/api/v1/orders"))[2] == []


def applied(target: tuple[str, str], headers: dict[str, str] | None = None) -> FaultApply:
    service, api = target
    fault = {"fault_type": "abort", "percentage": 30, "duration_seconds": 60}
    config = {"http_status": 503}
    return FaultApply.model_validate(
        {"service": service, "api": api, "headers": headers, "fault_config": config, **fault}
    )


def test_traffic_to_a_target_goes_to_what_calls_it_with_the_headers_of_the_fault() -> None:
    async def scenario() -> set[tuple[str, str, str | None]]:
        called: set[tuple[str, str, str | None]] = set()
        both = asyncio.Event()

        async def answer(request: web.Request) -> web.Response:
            called.add((request.host, request.path, request.headers.get("x-test-run")))
            if len(called) == 2:
                both.set()
            return web.json_response({})

        proxy = LoopbackServer("/api/", answer)
        await proxy.start()
        faults = [applied(STOCK, {"x-test-run": "42"}), applied(("PaymentService", "/api/v1/pay"))]
        traffic = asyncio.create_task(Traffic(100, proxy.address, lambda: faults, CALLED_THROUGH).run())
        try:
            await asyncio.wait_for(both.wait(), 30)
            return called
        finally:
            traffic.cancel()
            await asyncio.gather(traffic, return_exceptions=True)
            await proxy.stop()

    assert asyncio.run(scenario()) == {(*CHECKOUT, "42"), ("PaymentService", "/api/v1/pay", None)}
