"""Celery messages for asyncio, sent by a thread of its own: kombu blocks."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["PublishingThread"]


class PublishingThread:
    """Sends messages in one thread, which is started when it is first needed. Event loops may share it."""

    def __init__(self, send: Callable[[Sequence[tuple[str, str]]], bool]) -> None:
        """`send` is called in the thread: see `Publisher.send`."""
        self._send = send
        self._process = 0
        self._thread: ThreadPoolExecutor | None = None

    async def send(self, plans: Sequence[tuple[str, str]]) -> bool:
        """See `Publisher.send`. A task that is cancelled stops waiting; the messages are sent even so."""
        if self._thread is None or self._process != os.getpid():  # a fork copies no threads
            self._process = os.getpid()
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="dispatcher-publisher")
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._send, plans)

    def close(self) -> None:
        """End the thread once it has sent what it was given. The next message starts another."""
        thread, self._thread = self._thread, None
        if thread is not None and self._process == os.getpid():
            thread.shutdown(wait=False)
