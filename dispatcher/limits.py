"""Bounds that input must keep, wherever it comes in."""

from __future__ import annotations

import re

__all__ = ["MAX_SECONDS", "PLAN_ID", "SECONDS_RULE", "are_seconds", "no_bare_number"]

MAX_SECONDS = 31_536_000
"""A year. Longer waits do not fit into every clock and socket."""

SECONDS_RULE = f"must be a number of seconds above 0, and at most {MAX_SECONDS}"
"""What `are_seconds` asks for."""

PLAN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
"""What a whole plan id must match."""

DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


def no_bare_number(moment: object) -> object:
    """The moment, as it is. Raises `ValueError` for text such as `2020`: pydantic takes it for Unix time."""
    if isinstance(moment, str) and DATE.match(moment) is None:
        raise ValueError("must be a date and time as in RFC 3339, such as 2030-01-31T12:00:00Z")
    return moment


def are_seconds(value: object) -> bool:
    """Whether it is a number of seconds that a plan may be given. True is not one."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= MAX_SECONDS
