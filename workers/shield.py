"""Work that is not to be left halfway."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["shield"]

T = TypeVar("T")

LOOK_EVERY_SEC = 0.5
"""Python notices a signal that arrives as a wait begins only when that wait ends."""


def shield(work: Callable[[threading.Event], T]) -> T:
    """Do the work in a thread, so that no signal interrupts it; return or raise what the work does.

    If the caller is interrupted (Ctrl-C), set the event and wait for the end of the work.
    """
    interrupted = threading.Event()
    with ThreadPoolExecutor(1, "shield") as pool:
        pool.submit(bool).result()  # the pool waits for no thread whose start was interrupted
        try:
            done = pool.submit(work, interrupted)
            while not wait([done], LOOK_EVERY_SEC).done:
                pass
            return done.result()
        except BaseException:
            interrupted.set()
            raise
