"""Moments on the Redis server's clock, which the ledger keeps in milliseconds since 1970."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import overload

__all__ = ["LATEST_MS", "moment_of"]

LATEST_MS = 32_503_680_000_000
"""The begin of the year 3000. No moment of the ledger is later; what follows it is still a date."""


@overload
def moment_of(ms: float) -> datetime: ...
@overload
def moment_of(ms: float | None) -> datetime | None: ...
def moment_of(ms: float | None) -> datetime | None:
    """The date and time in UTC. None for None. Raises `ValueError` for what is not a date."""
    if ms is None:
        return None
    try:
        return datetime.fromtimestamp(ms / 1000, UTC)
    except (OSError, OverflowError) as exc:
        raise ValueError(f"{ms} ms since 1970 is not a date") from exc
