"""Which trace the calls of the current step belong to (W3C Trace Context)."""

from __future__ import annotations

import hashlib
import secrets
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["trace_id", "traced", "traceparent"]

_current: ContextVar[str | None] = ContextVar("trace", default=None)


def trace_id(plan_id: str) -> str:
    """The trace of a plan: the same one for all its calls, whichever worker makes them."""
    return hashlib.sha256(plan_id.encode()).hexdigest()[:32]


@contextmanager
def traced(plan_id: str) -> Iterator[None]:
    """Calls in this block belong to the plan's trace."""
    token = _current.set(trace_id(plan_id))
    try:
        yield
    finally:
        _current.reset(token)


def traceparent() -> str | None:
    """The header of a call that is made now. None outside of any trace."""
    trace = _current.get()
    return None if trace is None else f"00-{trace}-{secrets.token_hex(8)}-01"
