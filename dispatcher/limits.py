"""Bounds that input must keep, wherever it comes in."""

from __future__ import annotations

import math
import re
from decimal import Decimal
from numbers import Real
from typing import Any

__all__ = [
    "MAX_SECONDS",
    "PLAN_ID",
    "SECONDS_RULE",
    "no_bare_number",
    "number_in",
    "seconds_in",
]

MAX_SECONDS = 31_536_000
"""A year. Longer waits do not fit into every clock and socket."""

SECONDS_RULE = f"must be a number of seconds above 0, and at most {MAX_SECONDS}"
"""What `seconds_in` asks for."""

PLAN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
"""What a whole plan id must match."""

DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


def no_bare_number(moment: object) -> object:
    """The moment, as it is. Raises `ValueError` for text such as `2020`: pydantic takes it for Unix time."""
    if isinstance(moment, str) and DATE.match(moment) is None:
        raise ValueError("must be a date and time as in RFC 3339, such as 2030-01-31T12:00:00Z")
    return moment


def seconds_in(value: object) -> float | None:
    """The number of seconds that a plan may be given, from a number of any library. None if it is not one."""
    number = number_in(value)
    return number if number is not None and 0 < number <= MAX_SECONDS else None


def number_in(value: Any) -> float | None:
    """The number, of any library. None for anything else, True and NaN included."""
    if isinstance(value, bool) or not isinstance(value, Real | Decimal):
        return None
    try:
        number = float(value)
    except OverflowError:
        return -math.inf if value < 0 else math.inf
    except ValueError:  # a signalling NaN
        return None
    return None if math.isnan(number) else number
