"""`dispatcher` and other programs, as people run them."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from support.eventually import GENEROUS_S
from support.processes import WarmProcess

if TYPE_CHECKING:
    from collections.abc import Mapping

DISPATCHER = str(Path(sys.executable).with_name("dispatcher"))
"""For programs that start others, or are at a terminal."""

WARM = "dispatcher.cli:main"
"""The same, for those that begin at once."""


def dispatcher(*arguments: str, text: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    return run_program(WARM, *arguments, text=text, **environment)


def run_program(
    program: str, *arguments: str, text: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run to its end a program that begins at once."""
    return _run([program, *arguments], environment, text, GENEROUS_S)


def run_within(within_s: float, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run to its end a program that begins at once, and needs more time than others."""
    return _run([program, *arguments], {}, "", within_s)


def run_printed(
    module: str, *options: str, within_s: float = 2 * GENEROUS_S
) -> subprocess.CompletedProcess[str]:
    """Run a benchmark or a campaign to its end. What it printed is shown if the test fails."""
    done = run_within(within_s, module, *options)
    print(done.stdout, done.stderr)
    return done


def _run(
    command: list[str], environment: Mapping[str, str], text: str, within_s: float
) -> subprocess.CompletedProcess[str]:
    with tempfile.TemporaryDirectory() as folder:
        output, errors = Path(folder, "output"), Path(folder, "errors")
        with WarmProcess(command, output, environment, standard_input=text, errors=errors) as process:
            code = process.wait(within_s)
        return subprocess.CompletedProcess(command, code, process.output, errors.read_text("utf-8"))
