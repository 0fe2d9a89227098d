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
from typing import TYPE_CHECKING, Any, Protocol, Self

from support.eventually import GENEROUS_S, eventually
from support.warm import WarmChild

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
        log.touch()
        environment = {**os.environ, **(environment or {})}
        self.child = self.start(command, environment, standard_input, log, errors or log, cwd)

    def start(
        self,
        command: list[str],
        environment: Mapping[str, str],
        standard_input: str,
        output: Path,
        errors: Path,
        cwd: Path | None,
    ) -> subprocess.Popen[str] | WarmChild:
        with output.open("ab") as out, errors.open("ab") as err:
            child = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=out, stderr=err, env=environment, cwd=cwd, text=True
            )
        assert child.stdin is not None
        with suppress(BrokenPipeError), child.stdin as stdin:
            stdin.write(standard_input)
        return child

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

    def wait(self, within_s: float = GENEROUS_S) -> int:
        """Wait for the process to end; its exit code. If it does not end, kill it and fail."""
        try:
            return self.child.wait(within_s)
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


class WarmProcess(Process):
    """One that begins at once. Its command begins with a program that `WarmChild` knows.

    The list of processes shows its arguments only if it is not `warm`, and begins as programs do.
    """

    def __init__(self, *given: Any, warm: bool = True, **options: Any) -> None:
        self._warm = warm
        super().__init__(*given, **options)

    def start(
        self,
        command: list[str],
        environment: Mapping[str, str],
        standard_input: str,
        output: Path,
        errors: Path,
        cwd: Path | None,
    ) -> subprocess.Popen[str] | WarmChild:
        if not self._warm:
            cold = [sys.executable, "-m", *command]
            return super().start(cold, environment, standard_input, output, errors, cwd)
        program, *arguments = command
        return WarmChild(program, arguments, environment, standard_input, output, errors, cwd or Path.cwd())


class Workers(Protocol):
    """Starts one worker process for an Executor at `url`."""

    def __call__(self, url: str, *options: str, **environment: str) -> Process: ...


def start_worker(log: Path, environment: dict[str, str], *options: str, warm: bool = True) -> Process:
    """A worker that receives messages, once this returns."""
    command = ["celery", "--app", "workers.app", "worker", "--loglevel", "INFO"]
    command += ["--hostname", f"{log.stem}@%h", *options]
    worker = WarmProcess(command, log, environment, warm=warm)
    worker.wait_until(lambda: " ready." in worker.output)
    return worker


class ExecutorProcess(WarmProcess):
    """The reference Executor, with Envoy in front of the sample services and traffic on its faults."""

    def __init__(
        self, log: Path, *options: str, traffic_rps: float = 40, token: str = "", sample: bool = True
    ) -> None:
        command = ["executor", *["--sample"] * sample, "--port", "0", "--proxy-port", "0", *options]
        environment = {"EXECUTOR_TOKEN": token} if token else {}
        super().__init__([*command, "--traffic-rps", str(traffic_rps)], log, environment)
        self.wait_until(self._ready_line)
        line = self._ready_line()
        self.url = str(line["executor"])
        self.proxy = str(line["proxy"])
        self.admin = str(line["admin"])
        self.envoy_pid = int(str(line["envoy_pid"]))
        self.pid = int(str(line["pid"]))

    def _ready_line(self) -> dict[str, object]:
        lines = [line for line in self.output.splitlines(keepends=True) if line.startswith('{"executor"')]
        return json.loads(lines[0]) if lines and lines[0].endswith("\n") else {}


class Mark:
    """Distinguishes the processes that a test has started, with their children, from those of other tests."""

    def __init__(self) -> None:
        self.environment = {"STARTED_BY": uuid.uuid4().hex}

    def running(self) -> list[str]:
        """The command lines of those that are still there."""
        wanted = f"STARTED_BY={self.environment['STARTED_BY']}".encode()
        found = []
        for folder in Path("/proc").iterdir():
            try:
                if folder.name.isdecimal() and wanted in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(
                        (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    )
            except OSError:  # it has just ended
                continue
        return [command for command in found if command]  # what has ended and waits for its parent has none
