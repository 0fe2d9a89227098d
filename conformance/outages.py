"""The commands that take the Executor's process away and bring it back, such as `--kill` and `--start`."""

from __future__ import annotations

import shlex
import subprocess
import tempfile
from functools import partial

from conformance.errors import SkippedError
from conformance.outside import Outage
from dispatcher.errors import InvalidSettingsError

__all__ = ["outage"]

WITHIN_S = 120
LONGEST_WORDS = 200


def outage(begin: str | None, end: str | None, names: tuple[str, str]) -> Outage | None:
    """What the two options ask for. None if both are absent.

    Raises `InvalidSettingsError` if only one is there, or if one is not a command.
    """
    if begin is None and end is None:
        return None
    commands = []
    for name, text, other in ((names[0], begin, names[1]), (names[1], end, names[0])):
        if not text:
            raise _invalid(name, f"is required with {other}: the Executor is taken away and brought back")
        try:
            commands.append(partial(_run, name, shlex.split(text)))
        except ValueError as exc:
            raise _invalid(name, f"must be a command: {exc}") from exc
    return Outage(*commands)


def _run(name: str, words: list[str]) -> None:
    """Run a command to its end; what it leaves in the background goes on. Raises `SkippedError`."""
    with tempfile.TemporaryFile() as errors:  # no pipe, because what goes on could hold it open
        try:
            done = subprocess.run(  # noqa: S603 (the person who runs the checks gives the command)
                words,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                timeout=WITHIN_S,
                check=False,
            )
        except OSError as exc:
            raise SkippedError(f"{name} did not run: {exc.strerror}") from exc
        except subprocess.TimeoutExpired as exc:
            raise SkippedError(f"{name} took more than {WITHIN_S} s") from exc
        if done.returncode != 0:
            errors.seek(0)
            words_of_it = errors.read(LONGEST_WORDS).decode("utf-8", "backslashreplace").strip()
            raise SkippedError(f"{name} ended with {done.returncode}: {words_of_it or 'no message'}")


def _invalid(name: str, problem: str) -> InvalidSettingsError:
    return InvalidSettingsError(f"{name} {problem}", [[name, problem]])
