"""Child processes that end with their parent, even after kill -9."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from dispatcher.errors import ExecutorClientError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

__all__ = ["Child", "StackError", "ending_with_its_parent"]

STOP_WITHIN_SEC = 10.0
LOOK_EVERY_SEC = 0.02
PR_SET_PDEATHSIG = 1
LOG_LINES = 3


class StackError(ExecutorClientError):
    """A part of the local system did not start, or ended by itself."""

    advice = (
        "Read the lines of its log in the message; what is not installed is named with the command for it."
    )
    exit_code = 20


class Child:
    """A process in a session of its own: Ctrl-C does not reach it, so that its parent decides when it ends.

    What it prints is kept in `folder`, in `<name>.out` and `<name>.log`.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        folder: Path,
        *,
        environment: Mapping[str, str] | None = None,
        standard_input: str = "",
    ) -> None:
        """Start `command` with `environment` on top of this process's own. Raises `StackError`."""
        self._name = name
        self._out = folder / f"{name}.out"
        self._log = folder / f"{name}.log"
        try:
            with self._out.open("wb") as out, self._log.open("wb") as log:
                self._process = subprocess.Popen(  # noqa: S603 (our own command, and no shell)
                    command,
                    stdin=subprocess.PIPE,
                    stdout=out,
                    stderr=log,
                    env={**os.environ, **(environment or {})},
                    start_new_session=True,
                    preexec_fn=ending_with_its_parent(),  # noqa: PLW1509 (it takes no lock)
                )
        except OSError as exc:
            raise StackError(f"{name} does not start: {exc}") from exc
        self._give(standard_input)

    def check(self) -> None:
        """Raises `StackError`, with the last lines of its log, if the process has ended."""
        code = self._process.poll()
        if code is not None:
            raise StackError(f"{self._name} ended with exit code {code}: {self._last_lines() or 'no log'}")

    def wait_until(self, ready: Callable[[], bool], within_sec: float) -> None:
        """Wait for `ready()`. Raises `StackError` if the process ends, or takes longer."""
        give_up_at = time.monotonic() + within_sec
        while not ready():
            self.check()
            if time.monotonic() > give_up_at:
                raise StackError(f"{self._name} is not ready after {within_sec:g} s: {self._last_lines()}")
            time.sleep(LOOK_EVERY_SEC)

    def first_line(self, within_sec: float) -> str:
        """The first line that the process prints. Raises `StackError`."""
        self.wait_until(lambda: "\n" in self._out.read_text("utf-8"), within_sec)
        return self._out.read_text("utf-8").splitlines()[0]

    def stop(self) -> None:
        """Ask the process to end, and kill it if it does not."""
        if self._process.poll() is None:
            self._process.terminate()
        try:
            self._process.wait(STOP_WITHIN_SEC)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _give(self, text: str) -> None:
        assert self._process.stdin is not None  # noqa: S101 (it is a pipe)
        try:
            with self._process.stdin as stdin:
                stdin.write(text.encode())
        except BrokenPipeError:
            self.check()

    def _last_lines(self) -> str:
        printed = (self._log.read_text("utf-8", "replace") + self._out.read_text("utf-8", "replace")).strip()
        return " | ".join(printed.splitlines()[-LOG_LINES:])


def ending_with_its_parent() -> Callable[[], None] | None:
    """For `preexec_fn`: has Linux end a child with SIGTERM when its parent is gone, even after kill -9.

    None on other systems, which have no such thing.
    """
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)
    return lambda: libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
