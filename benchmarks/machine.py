"""What a measurement was made on, as its readers need it: nothing that names one particular machine."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from dispatcher.devstack.stack import redis_server

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["description"]


def description(packages: Sequence[str]) -> str:
    """Processor, memory, kernel, Python, Redis and the versions of `packages`, in two sentences."""
    parts = [
        f"{os.cpu_count()} cores ({_field('/proc/cpuinfo', 'model name')})",
        f"{int(_field('/proc/meminfo', 'MemTotal').split()[0]) / 1024**2:.0f} GB of memory",
        f"{platform.system()} {re.match(r'[0-9.]+', platform.release())[0]}",  # type: ignore[index]
        f"Python {platform.python_version()}",
        f"{_redis_version()} (append-only file, synced every second)",
    ]
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    return f"Measured on {', '.join(parts)}. Packages: {versions}."


def _field(path: str, name: str) -> str:
    """The first value of a field in one of the kernel's files."""
    found = re.search(rf"^{name}\s*:\s*(.+)$", Path(path).read_text("utf-8"), re.MULTILINE)
    return found[1].strip() if found else "0 unknown"


def _redis_version() -> str:
    """Such as `Redis 7.0.15` or `Valkey 9.1.2`."""
    message = subprocess.run([redis_server(), "--version"], capture_output=True, text=True, check=True)  # noqa: S603 (ours)
    found = re.search(r"(\w+) server v=([0-9.]+)", message.stdout)
    return f"{found[1]} {found[2]}" if found else "an unknown Redis"
