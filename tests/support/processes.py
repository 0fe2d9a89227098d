"""Real worker and Executor processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

from support.eventually import GENEROUS_S, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Process:
    """A child of the test, with its output in a file. It ends with this context manager at the latest.

    `errors` is the file for its standard error, if that is not to be in `log` too.
    """

    def __init__(
        self,
        command: list[str],
        log: Path,
        environment: Mapping[str, str] | None = None,
        *,
        standard_input: str = "",
        errors: Path | None = None,
        cwd: Path | None = None,
    ) -> None:
        self._log = log
        with log.open("ab") as out, (errors or log).open("ab") as err:
            self.child = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=err,
                env={**os.environ, **(environment or {})},
                cwd=cwd,
                text=True,
            )
        assert self.child.stdin is not None
        with suppress(BrokenPipeError), self.child.stdin as stdin:
            stdin.write(standard_input)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.kill()

    @property
    def output(self) -> str:
        """What the process has printed so far."""
        return self._log.read_text("utf-8")

    def alive(self) -> bool:
        return self.child.poll() is None

    def wait_until(self, ready: Callable[[], object]) -> None:
        """Wait until the process is ready. If it ends before, or takes too long, kill it and fail."""
        try:
            eventually(lambda: ready() or not self.alive())
            assert self.alive(), self.output
        except BaseException:
            self.kill()
            raise

    def send_signal(self, number: signal.Signals) -> None:
        self.child.send_signal(number)

    def wait(self) -> int:
        """Wait for the process to end; its exit code. If it does not end, kill it and fail."""
        try:
            return self.child.wait(GENEROUS_S)
        except BaseException:
            self.kill()
            raise

    def kill(self) -> None:
        """kill -9"""
        self.child.kill()
        self.child.wait()

    def stop(self) -> int:
        """Ask the process to end; its exit code."""
        if self.alive():
            self.send_signal(signal.SIGTERM)
        return self.wait()


class Workers(Protocol):
    """Starts one worker process for an Executor at `url`."""

    def __call__(self, url: str, *options: str, **environment: str) -> Process: ...


def start_worker(log: Path, environment: dict[str, str], *options: str) -> Process:
    """A worker that receives messages, once this returns."""
    command = [sys.executable, "-m", "celery", "--app", "workers.app", "worker", "--loglevel", "INFO"]
    command += ["--hostname", f"{log.stem}@%h", *options]
    worker = Process(command, log, environment)
    worker.wait_until(lambda: " ready." in worker.output)
    return worker


class ExecutorProcess(Process):
    """The reference Executor, with Envoy in front of the sample services and traffic on its faults."""

    def __init__(self, log: Path, *, traffic_rps: float = 40) -> None:
        command = [sys.executable, "-m", "executor", "--sample", "--port", "0", "--proxy-port", "0"]
        super().__init__([*command, "--traffic-rps", str(traffic_rps)], log)
        self.wait_until(self._ready_line)
        line = self._ready_line()
        self.url = str(line["executor"])
        self.proxy = str(line["proxy"])
        self.admin = str(line["admin"])
        self.envoy_pid = int(str(line["envoy_pid"]))

    def _ready_line(self) -> dict[str, object]:
        lines = [line for line in self.output.splitlines(keepends=True) if line.startswith('{"executor"')]
        return json.loads(lines[0]) if lines and lines[0].endswith("\n") else {}


class Mark:
    """Tells the processes that a test has started, and all that these have, from those of other tests."""

    def __init__(self) -> None:
        self.environment = {"STARTED_BY": uuid.uuid4().hex}

    def running(self) -> list[str]:
        """The command lines of those that are still there."""
        wanted = f"STARTED_BY={self.environment['STARTED_BY']}".encode()
        found = []
        for folder in Path("/proc").iterdir():
            try:
                if folder.name.isdecimal() and wanted in (folder / "environ").read_bytes().split(b"\0"):
                    found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:  # it has just ended
                continue
        return [command for command in found if command]  # what has ended and waits for its parent has none
