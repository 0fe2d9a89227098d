"""Small services to have something that faults can hit, with a weakness to find.

OrderService asks InventoryService for the stock at each checkout. If InventoryService fails, it takes the
order without a promised date. If InventoryService is slower than `PATIENCE_S`, the checkout fails: its client
expects errors, and no slow answers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import aiohttp
from aiohttp import web

from executor.loopback import LoopbackServer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from executor.envoy_config import Address

__all__ = ["CALLED_THROUGH", "PATIENCE_S", "SAMPLE_SERVICES", "SampleService", "sample_service"]

SAMPLE_SERVICES = ("PaymentService", "OrderService", "InventoryService")

STOCK = ("InventoryService", "/api/v1/stock")
CHECKOUT = ("OrderService", "/api/v1/checkout")

CALLED_THROUGH = {STOCK: CHECKOUT}
"""Targets that no client calls itself, each with the one that calls it for each of its own requests."""

PATIENCE_S = 0.4
"""Client time-out of OrderService."""

OF_ONE_HOP = {
    "accept",
    "accept-encoding",
    "connection",
    "content-length",
    "content-type",
    "host",
    "traceparent",
    "tracestate",
    "transfer-encoding",
    "user-agent",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-request-id",
}
"""Headers that a service does not pass on."""

FIRST_ERROR_STATUS = 400


class SampleService(LoopbackServer):
    """Answers every path below /api/, under any host name."""

    def __init__(self) -> None:
        super().__init__("/api/", self._answer)
        self.proxy: Address | None = None
        """The address of the proxy to the services that it calls. None: it calls no service."""

    async def _answer(self, request: web.Request) -> web.Response:
        body = {"service": request.host, "path": request.path, "received": len(await request.read())}
        if self.proxy is None or (request.host, request.path) != CHECKOUT:
            return web.json_response(body)
        try:
            status = await _status_of(STOCK, self.proxy, _passed_on(request.headers))
        except (TimeoutError, aiohttp.ClientError):
            return web.json_response(body | {"error": f"{STOCK[0]} has no answer"}, status=504)
        return web.json_response(body | {"date_promised": status < FIRST_ERROR_STATUS})


def _passed_on(headers: Mapping[str, str]) -> dict[str, str]:
    """What the service sends to those that it calls, so that test traffic is known there, too."""
    names = [name for name in headers if name.lower() not in OF_ONE_HOP]
    return {name: headers[name] for name in names if not name.lower().startswith("x-envoy-")}


async def _status_of(target: tuple[str, str], proxy: Address, headers: Mapping[str, str]) -> int:
    """What the target answers to a GET. Raises if it does not answer in time."""
    service, path = target
    url = f"http://{proxy[0]}:{proxy[1]}{path}"
    patience = aiohttp.ClientTimeout(total=PATIENCE_S)
    async with (
        aiohttp.ClientSession(timeout=patience) as session,
        session.get(url, headers={**headers, "Host": service}) as answer,
    ):
        await answer.read()
        return answer.status


def sample_service() -> SampleService:
    """One that plays all of `SAMPLE_SERVICES`, not yet started."""
    return SampleService()
