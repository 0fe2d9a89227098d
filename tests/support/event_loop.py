"""An event loop for one scenario of a test, which ends even if the scenario would not."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")

WITHIN_S = 30.0
"""Longer than any scenario takes, on a machine whose cores are all busy."""


def run(scenario: Coroutine[Any, Any, T]) -> T:
    """What the scenario returns. Raises `TimeoutError` if it does not end in time."""
    return asyncio.run(asyncio.wait_for(scenario, WITHIN_S))
