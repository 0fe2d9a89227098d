"""A program on a terminal of its own, at which the test types."""

from __future__ import annotations

import errno
import os
import pty
import subprocess
from typing import TYPE_CHECKING, Self

from support.eventually import eventually

if TYPE_CHECKING:
    import signal
    from collections.abc import Mapping


class Terminal:
    """Ends its program with this context manager."""

    def __init__(self, command: list[str], environment: Mapping[str, str]) -> None:
        self._master, slave = pty.openpty()
        os.set_blocking(self._master, False)
        settings = {**os.environ, "COLUMNS": "80", "LINES": "24", "TERM": "dumb", **environment}
        self._process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, env=settings, start_new_session=True
        )
        os.close(slave)
        self._unread = ""
        self.seen = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._master)

    def send_signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def wait(self) -> int:
        """Wait for the program to end; its exit code. What it prints at last is in `seen`."""

        def ended() -> bool:
            self._read()  # a program that prints more than its terminal holds would wait for its reader
            return self._process.poll() is not None

        eventually(ended)
        self._read()
        return self._process.wait()

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def until_seen(self, text: str) -> str:
        """Wait for the text; what came before it. The next wait begins behind it."""
        eventually(lambda: text in self._read())
        before, _, self._unread = self._unread.partition(text)
        return before

    def _read(self) -> str:
        try:
            while part := os.read(self._master, 65_536):
                text = part.decode("utf-8", "replace")
                self.seen += text
                self._unread += text
        except BlockingIOError:
            pass
        except OSError as exc:
            if exc.errno != errno.EIO:  # which is how Linux says that the program has closed its terminal
                raise
        return self._unread
