"""Numbers that callers pass, checked before anything is sent."""

from __future__ import annotations

import math
import sys
from numbers import Integral
from typing import Any

from dispatcher.errors import InvalidSettingsError
from dispatcher.limits import number_in

__all__ = ["count_in", "waiting_time"]


def waiting_time(timeout: object) -> float | None:
    """How long a call waits, in seconds, from a number of any library. None if it waits without a limit.

    A number below 0 is 0. Raises `InvalidSettingsError`.
    """
    seconds = number_in(math.inf if timeout is None else timeout)
    if seconds is None:
        raise _wrong("timeout", "must be a number of seconds, or None to wait without a limit")
    return None if seconds == math.inf else max(0.0, seconds)


def count_in(name: str, value: Any, *, most: int = sys.maxsize) -> int:
    """A whole number of any library, from 1 to `most`. Raises `InvalidSettingsError`."""
    if isinstance(value, bool) or not isinstance(value, Integral) or not 1 <= int(value) <= most:
        raise _wrong(name, f"must be a whole number, at least 1 and at most {most}")
    return int(value)


def _wrong(name: str, problem: str) -> InvalidSettingsError:
    return InvalidSettingsError(f"invalid argument: {name} {problem}", [[name, problem]])
