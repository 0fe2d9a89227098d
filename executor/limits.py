"""Bounds on what a client may send, as ASGI middleware."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException

from executor.refusals import refusal

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["MAX_BODY_BYTES", "BodyLimit"]

MAX_BODY_BYTES = 1_000_000

LINGER_S = 2.0
"""How long the rest of a body that was refused is read, and thrown away."""

CLOSE = {"Connection": "close"}
TOO_LARGE = f"a body has at most {MAX_BODY_BYTES} bytes"


class BodyLimit:
    """Answers 413 to a body of more than `MAX_BODY_BYTES`, and keeps no more of it than that.

    Answers 408 to a body that is not complete `within_s` seconds after its request began. After a 413 the
    rest is read for a while: a connection that is closed before would be reset, and the answer lost with it
    (RFC 9112, 9.6).
    """

    def __init__(self, app: ASGIApp, within_s: float) -> None:
        self._app = app
        self._within_s = within_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI 3)."""
        if scope["type"] == "http" and _declared(scope) > MAX_BODY_BYTES:
            await refusal(413, TOO_LARGE, CLOSE)(scope, receive, _lingering(receive, send))
            return
        complete_by_s: float | None = asyncio.get_running_loop().time() + self._within_s
        received = 0
        answer = send

        async def receive_some() -> Message:
            nonlocal received, complete_by_s, answer
            try:
                async with asyncio.timeout_at(complete_by_s):
                    message = await receive()
            except TimeoutError as exc:
                raise HTTPException(408, f"the body took more than {self._within_s:g} s", CLOSE) from exc
            received += len(message.get("body", b""))
            if received > MAX_BODY_BYTES:
                answer = _lingering(receive, send)
                raise HTTPException(413, TOO_LARGE, CLOSE)
            if not message.get("more_body", False):
                complete_by_s = None  # what comes next is the client's end
            return message

        async def send_some(message: Message) -> None:
            await answer(message)

        await self._app(scope, receive_some, send_some)


def _lingering(receive: Receive, send: Send) -> Send:
    """`send` that ends an answer, and so its connection, once the rest of the body has been read."""

    async def send_lingering(message: Message) -> None:
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            await send({**message, "more_body": True})
            with suppress(TimeoutError):
                async with asyncio.timeout(LINGER_S):
                    while (await receive()).get("more_body", False):
                        pass
            message = {"type": "http.response.body"}
        await send(message)

    return send_lingering


def _declared(scope: Scope) -> int:
    """What the header says of the body's length. 0 if there is no such header."""
    lengths = [value for name, value in scope["headers"] if name == b"content-length"]
    return int(lengths[0]) if lengths and lengths[0].isdigit() else 0
