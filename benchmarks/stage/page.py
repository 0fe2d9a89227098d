"""Parts of a page in `docs/` that a program writes."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from benchmarks.stage.commands import REPOSITORY
from dispatcher.devstack.stack import redis_server

if TYPE_CHECKING:
    from collections.abc import Sequence

DOCS = REPOSITORY / "docs"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column names the rows."""
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def rewrite(part: str, text: str, page: Path = DOCS / "performance.md") -> None:
    """Put `text` between the two marks of `part`."""
    begin, end = f"<!-- {part}: written by the benchmark -->", f"<!-- end of {part} -->"
    before, _, rest = page.read_text("utf-8").partition(begin)
    _, _, after = rest.partition(end)
    page.write_text(f"{before}{begin}\n\n{text.strip()}\n\n{end}{after}", "utf-8")


def description(packages: Sequence[str]) -> str:
    """What it was measured on, as readers need it: nothing that names one particular machine.

    Packages that are not installed are left out.
    """
    server = subprocess.run([redis_server(), "--version"], capture_output=True, text=True, check=True)  # noqa: S603 (ours)
    found = re.search(r"(\w+) server v=([0-9.]+)", server.stdout)
    model = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text("utf-8"), re.MULTILINE)
    redis = f"{found[1]} {found[2]}" if found else "an unknown Redis"
    parts = [
        f"{os.cpu_count()} cores ({model[1].strip() if model else 'unknown'})",
        f"{psutil.virtual_memory().total / 1024**3:.0f} GB of memory",
        f"{platform.system()} {platform.release().partition('-')[0]}",
        f"Python {platform.python_version()}",
        f"{redis} (append-only file, synced every second)",
    ]
    versions = [f"{name} {installed}" for name in packages if (installed := _version(name))]
    return f"Measured on {', '.join(parts)}. Packages: {', '.join(versions)}."


def _version(package: str) -> str:
    """Of an installed package. Empty if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
