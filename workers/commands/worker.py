"""`dispatcher worker`: worker processes with the right options."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import Annotated

import typer

from dispatcher.celery_command import celery_command
from dispatcher.devstack.child import ending_with_its_parent
from dispatcher.settings.settings import LogFormat, load_settings

__all__ = ["worker"]

LOOK_EVERY_SEC = 0.2


def worker(
    *,
    processes: Annotated[int, typer.Option(min=1, help="Worker processes.")] = 1,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Steps that each takes at once (worker.threads if absent).")
    ] = None,
    loglevel: Annotated[str, typer.Option(help="DEBUG, INFO, WARNING or ERROR.")] = "INFO",
    log_format: Annotated[
        LogFormat | None, typer.Option(help="How log lines look (logs.format if absent).")
    ] = None,
) -> None:
    """Carry plans out, until Ctrl-C or SIGTERM: steps under way are finished first.

    If one of several processes ends by itself, the others are stopped, too.
    """
    if log_format is not None:
        os.environ["DISPATCHER_LOGS__FORMAT"] = log_format
    for variable in [name for name in os.environ if name.startswith("CELERY_WORKER_")]:
        del os.environ[variable]  # another program's: celery would take it for an option of its command line
    settings = load_settings()
    steps = threads or settings.worker.threads
    command = celery_command("worker", "--concurrency", str(steps), "--loglevel", loglevel.upper())
    command += ["--without-gossip", "--without-mingle"]  # workers need no knowledge of each other
    if processes == 1:
        os.execv(sys.executable, command)  # noqa: S606 (our own command, and no shell)
    _run([[*command, "--hostname", f"worker{number}@%h"] for number in range(1, processes + 1)])


def _run(commands: list[list[str]]) -> None:
    """Run them all until one ends, or until a signal. A signal from the terminal reaches them by itself."""
    children = [
        subprocess.Popen(command, start_new_session=True, preexec_fn=ending_with_its_parent())  # noqa: S603, PLW1509 (ours, it takes no lock)
        for command in commands
    ]
    try:
        while all(child.poll() is None for child in children):
            time.sleep(LOOK_EVERY_SEC)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for child in children:
            child.terminate()
        for child in children:
            child.wait()
    raise typer.Exit(1)
