"""Programs that begin at once: forked from a process that has imported what they need.

To import Celery, pydantic and the rest takes a second of CPU, and tests start hundreds of programs. These are
processes like any other: with an environment, standard input, outputs, signals and an exit code of their own.
"""

from __future__ import annotations

import gc
import io
import multiprocessing
import os
import pkgutil
import runpy
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from importlib import import_module
from multiprocessing import forkserver
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

FORKS = multiprocessing.get_context("forkserver")
OURS = ("dispatcher", "workers", "executor", "conformance")
PROGRAMS = {"dispatcher.worker_app", "executor.__main__", "workers.app"}
OTHERS = (
    "celery.app.log",
    "celery.apps.worker",
    "celery.backends.redis",
    "celery.bin.celery",
    "celery.bin.worker",
    "celery.fixups.django",
    "celery.loaders.app",
    "celery.worker.autoscale",
    "celery.worker.consumer",
    "flower.command",
    "kombu.transport.redis",
    "optuna",
    "optuna.storages",
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "uvicorn.protocols.http.auto",
)
"""What programs import only once they run."""

WIDTH = {"COLUMNS": "80"}
"""Rich takes it over when it is imported."""


@contextmanager
def prepared() -> Iterator[None]:
    """Import everything, so that programs begin at once from here on."""
    before = os.environ.get("COLUMNS")
    os.environ |= WIDTH
    FORKS.set_forkserver_preload([*modules(), *OTHERS])
    forkserver.ensure_running()
    if before is None:
        del os.environ["COLUMNS"]
    else:
        os.environ["COLUMNS"] = before
    yield


def modules() -> list[str]:
    """All of our own that do nothing as they are imported."""
    packages = [import_module(package) for package in OURS]
    found = (
        module.name
        for package in packages
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    )
    return [name for name in found if name not in PROGRAMS]


class WarmChild:
    """A program, with what `subprocess.Popen` offers for it.

    `program` is a module, as `python -m` runs it, `module:function`, or the path of a file.
    """

    def __init__(
        self,
        program: str,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        standard_input: str,
        output: Path,
        errors: Path,
        cwd: Path,
    ) -> None:
        given = (program, list(arguments), dict(environment), standard_input, output, errors, cwd)
        self._process = FORKS.Process(target=_run, args=given, name="MainProcess")
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("", timeout or 0.0)
        return self._process.exitcode

    def send_signal(self, number: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _run(
    program: str,
    arguments: list[str],
    environment: dict[str, str],
    standard_input: str,
    output: Path,
    errors: Path,
    cwd: Path,
) -> None:
    """Become the program."""
    gc.freeze()  # to collect what was imported would copy all of its memory
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    _redirect(standard_input, output, errors)
    module, _, function = program.partition(":")
    sys.argv = [module.partition(".")[0], *arguments]
    sys.path[:0] = filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))
    if program.endswith(".py"):
        runpy.run_path(program, run_name="__main__")
    elif function:
        getattr(import_module(module), function)()
    else:
        runpy.run_module(module, run_name="__main__", alter_sys=True)


def _redirect(standard_input: str, output: Path, errors: Path) -> None:
    with tempfile.TemporaryFile() as file:
        file.write(standard_input.encode())
        file.seek(0)
        os.dup2(file.fileno(), 0)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 (for as long as the process is there)
    for number, path in ((1, output), (2, errors)):
        with path.open("ab") as file:
            os.dup2(file.fileno(), number)
    assert isinstance(sys.stdout, io.TextIOWrapper)
    sys.stdout.reconfigure(line_buffering=True)
