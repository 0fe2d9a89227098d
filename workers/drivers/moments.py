"""Moments in an Executor's answers: dates and times as in RFC 3339."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated

from pydantic import BeforeValidator

__all__ = ["Moment", "rfc3339"]

SHAPE = re.compile(r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}:\d{2}(\.\d{1,12})?([Zz]|[+-]\d{2}:\d{2})")
UNSET = datetime(1, 1, 1, tzinfo=UTC)
"""What programs in Go write for a time that was never set."""


def rfc3339(moment: datetime) -> str:
    """The moment in UTC with milliseconds, as in `2030-01-31T12:00:00.000Z` (RFC 3339, section 5.6)."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _moment(value: object) -> datetime | None:
    """The moment in UTC. None for None, and for a time that Go never set."""
    if value is None or isinstance(value, datetime):
        return value
    if not (isinstance(value, str) and SHAPE.fullmatch(value)):
        raise ValueError("must be a date and time with a zone (RFC 3339), such as 2030-01-31T12:00:00Z")
    try:
        moment = datetime.fromisoformat(value.upper())
        return None if moment == UNSET else moment.astimezone(UTC)
    except (ValueError, OverflowError) as exc:
        raise ValueError("must be a date and time that exists, and that fits into a clock") from exc


Moment = Annotated[datetime | None, BeforeValidator(_moment)]
"""A field of an answer. A time without a zone breaks the contract."""
