"""How a check ends that does not pass."""

from __future__ import annotations

__all__ = ["FailedError", "SkippedError"]


class FailedError(Exception):
    """The promise is broken. Its text is what was seen."""


class SkippedError(Exception):
    """The check cannot be made. Its text is the reason."""
