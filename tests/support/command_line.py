"""`dispatcher` and other programs, as people run them."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from support.processes import WarmProcess

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
    with tempfile.TemporaryDirectory() as folder:
        output, errors = Path(folder, "output"), Path(folder, "errors")
        command = [program, *arguments]
        with WarmProcess(command, output, environment, standard_input=text, errors=errors) as process:
            code = process.wait()
        return subprocess.CompletedProcess(command, code, process.output, errors.read_text("utf-8"))
