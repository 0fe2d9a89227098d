"""Moments on the Redis server's clock, which the ledger keeps in milliseconds since 1970."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import overload

__all__ = ["moment_of"]


@overload
def moment_of(ms: float) -> datetime: ...
@overload
def moment_of(ms: float | None) -> datetime | None: ...
def moment_of(ms: float | None) -> datetime | None:
    """The date and time in UTC. None for None."""
    return None if ms is None else datetime.fromtimestamp(ms / 1000, UTC)
