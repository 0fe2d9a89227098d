"""A small service to have something that faults can hit."""

from __future__ import annotations

from aiohttp import web

from executor.loopback import LoopbackServer

__all__ = ["SAMPLE_SERVICES", "sample_service"]

SAMPLE_SERVICES = ("PaymentService", "OrderService", "InventoryService")


def sample_service() -> LoopbackServer:
    """Answers every path below /api/, under any host name."""
    return LoopbackServer("/api/", _answer)


async def _answer(request: web.Request) -> web.Response:
    body = {"service": request.host, "path": request.path, "received": len(await request.read())}
    return web.json_response(body)
