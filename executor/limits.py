"""Bounds on what a client may send, as ASGI middleware."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException

from executor.refusals import refusal

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["MAX_BODY_BYTES", "BodyLimit"]

MAX_BODY_BYTES = 1_000_000

CLOSE = {"Connection": "close"}
TOO_LARGE = f"a body has at most {MAX_BODY_BYTES} bytes"


class BodyLimit:
    """Answers 413 to a body of more than `MAX_BODY_BYTES`, and keeps no more of it than that.

    Answers 408 to a body that is not complete `within_s` seconds after its request began.
    """

    def __init__(self, app: ASGIApp, within_s: float) -> None:
        self._app = app
        self._within_s = within_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI 3)."""
        if scope["type"] == "http" and _declared(scope) > MAX_BODY_BYTES:
            await refusal(413, TOO_LARGE, CLOSE)(scope, receive, send)
            return
        complete_by_s: float | None = asyncio.get_running_loop().time() + self._within_s
        received = 0

        async def receive_some() -> Message:
            nonlocal received, complete_by_s
            try:
                async with asyncio.timeout_at(complete_by_s):
                    message = await receive()
            except TimeoutError as exc:
                raise HTTPException(408, f"the body took more than {self._within_s:g} s", CLOSE) from exc
            received += len(message.get("body", b""))
            if received > MAX_BODY_BYTES:
                raise HTTPException(413, TOO_LARGE, CLOSE)
            if not message.get("more_body", False):
                complete_by_s = None  # what comes next is the client's end
            return message

        await self._app(scope, receive_some, send)


def _declared(scope: Scope) -> int:
    """What the header says of the body's length. 0 if there is no such header."""
    lengths = [value for name, value in scope["headers"] if name == b"content-length"]
    return int(lengths[0]) if lengths and lengths[0].isdigit() else 0
