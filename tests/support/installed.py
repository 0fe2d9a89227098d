"""The wheel of this checkout in a virtual environment of its own, as `pip install` leaves it."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if TYPE_CHECKING:
    from collections.abc import Iterable

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "requirements" / "development.txt"
PIN = re.compile(r"^(?P<name>[\w.-]+)==[^\\\n]+\\\n(?: +--hash=sha256:[0-9a-f]{64}(?: \\)?\n)+", re.MULTILINE)
PROJECT = "fault-dispatcher"


class Installed:
    """A virtual environment that has the wheel, and the locked versions of what the wheel requires."""

    def __init__(self, folder: Path) -> None:
        """The folder is a new one. Nothing is installed yet."""
        self.bin = folder / "bin"
        self._folder = folder
        _uv("venv", "--python", sys.executable, str(folder))

    def install(self, wheel: Path, *extras: str) -> None:
        """The same as `pip install 'WHEEL[extra,...]'`, from the cache of packages if that has them."""
        names = closure(Requirement(f"{PROJECT}[{','.join(extras)}]" if extras else PROJECT)) - {PROJECT}
        pins = self._folder / "pins.txt"
        found = {str(canonicalize_name(pin["name"])): pin[0] for pin in PIN.finditer(LOCK.read_text("utf-8"))}
        pins.write_text("".join(found[name] for name in sorted(names)), "utf-8")
        locked = ["--no-deps", "--require-hashes", "--requirement", str(pins)]
        self._install("--offline", *locked) or self._install(*locked, check=True)
        self._install("--offline", "--no-deps", str(wheel), check=True)

    def size(self) -> int:
        """How many bytes its packages take."""
        packages = next(self._folder.glob("lib/python*/site-packages"))
        return sum(file.stat().st_size for file in packages.rglob("*") if file.is_file())

    def _install(self, *arguments: str, check: bool = False) -> bool:
        return _uv("pip", "install", "--python", str(self.bin / "python"), *arguments, check=check)


def build(folder: Path) -> Path:
    """The wheel of this checkout, with the source package in the same folder."""
    command = [sys.executable, "-m", "hatchling", "build", "--directory", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


def closure(*wanted: Requirement) -> set[str]:
    """The names of these packages and of all that they require here, as this environment has them."""
    left = list(wanted)
    seen: set[tuple[str, ...]] = set()
    names: set[str] = set()
    while left:
        each = left.pop()
        name = canonicalize_name(each.name)
        if (name, *each.extras) in seen:
            continue
        seen.add((name, *each.extras))
        names.add(name)
        left += _required(name, {"", *each.extras})
    return names


def _required(name: str, extras: Iterable[str]) -> list[Requirement]:
    try:
        found = [Requirement(text) for text in requires(name) or []]
    except PackageNotFoundError:
        return []
    return [
        each
        for each in found
        if each.marker is None or any(each.marker.evaluate({"extra": extra}) for extra in extras)
    ]


def _uv(*arguments: str, check: bool = True) -> bool:
    command = [sys.executable, "-m", "uv", "--system-certs", "--quiet", *arguments]
    return subprocess.run(command, check=check, capture_output=True).returncode == 0
