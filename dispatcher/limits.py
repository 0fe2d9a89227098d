"""Bounds that input must keep, wherever it comes in."""

from __future__ import annotations

import re

__all__ = ["MAX_SECONDS", "PLAN_ID"]

MAX_SECONDS = 31_536_000
"""A year. Longer waits do not fit into every clock and socket."""

PLAN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
"""What a whole plan id must match."""
