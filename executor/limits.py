"""Bounds on what a client may send, as ASGI middleware."""

from __future__ import annotations

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
    """Answers 413 to a body of more than `MAX_BODY_BYTES`, and keeps no more of it than that."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI 3)."""
        if scope["type"] == "http" and _declared(scope) > MAX_BODY_BYTES:
            await refusal(413, TOO_LARGE, CLOSE)(scope, receive, send)
            return
        received = 0

        async def receive_some() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > MAX_BODY_BYTES:
                raise HTTPException(413, TOO_LARGE, CLOSE)
            return message

        await self._app(scope, receive_some, send)


def _declared(scope: Scope) -> int:
    """What the header says of the body's length. 0 if there is no such header."""
    lengths = [value for name, value in scope["headers"] if name == b"content-length"]
    return int(lengths[0]) if lengths and lengths[0].isdigit() else 0
