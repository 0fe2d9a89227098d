"""Real worker and Executor processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Protocol

from support.eventually import eventually


class Process:
    """A child of the test, with its output in a file."""

    def __init__(self, command: list[str], log: Path, environment: dict[str, str] | None = None) -> None:
        self._log = log
        with log.open("ab") as out:
            self.child = subprocess.Popen(
                command, stdout=out, stderr=out, env={**os.environ, **(environment or {})}
            )

    @property
    def output(self) -> str:
        return self._log.read_text("utf-8")

    def alive(self) -> bool:
        return self.child.poll() is None

    def kill(self) -> None:
        """kill -9"""
        self.child.kill()
        self.child.wait()

    def stop(self) -> int:
        """Ask it to end; its exit code."""
        if self.alive():
            self.child.send_signal(signal.SIGTERM)
        return self.child.wait(timeout=20)


class Workers(Protocol):
    """Starts one worker process for an Executor at `url`."""

    def __call__(self, url: str, *options: str, **environment: str) -> Process: ...


def start_worker(log: Path, environment: dict[str, str], *options: str) -> Process:
    """A worker that takes wake-ups, once this returns."""
    command = [sys.executable, "-m", "celery", "--app", "workers.app", "worker", "--loglevel", "INFO"]
    command += ["--hostname", f"{log.stem}@%h", *options]
    worker = Process(command, log, environment)
    eventually(lambda: " ready." in worker.output or not worker.alive(), within_s=30)
    assert worker.alive(), worker.output
    return worker


class ExecutorProcess(Process):
    """The reference Executor, with Envoy in front of the sample services and traffic on its faults."""

    def __init__(self, log: Path, *, traffic_rps: float = 40) -> None:
        command = [sys.executable, "-m", "executor", "--sample", "--port", "0", "--proxy-port", "0"]
        super().__init__([*command, "--traffic-rps", str(traffic_rps)], log)
        line = eventually(self._ready_line, within_s=30) or {}
        self.url = str(line["executor"])
        self.proxy = str(line["proxy"])
        self.admin = str(line["admin"])
        self.envoy_pid = int(str(line["envoy_pid"]))

    def _ready_line(self) -> dict[str, object] | None:
        assert self.alive(), self.output
        lines = [line for line in self.output.splitlines() if line.startswith('{"executor"')]
        return json.loads(lines[0]) if lines else None


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
