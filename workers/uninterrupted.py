"""Work that is not to be left halfway."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["uninterrupted"]

T = TypeVar("T")


def uninterrupted(work: Callable[[threading.Event], T]) -> T:
    """Do the work in a thread, where no signal meets it in the middle; what it returns or raises.

    Where the caller is interrupted (Ctrl-C), the event is set, and the work's end is waited for.
    """
    interrupted = threading.Event()
    with ThreadPoolExecutor(1, "uninterrupted") as pool:
        done = pool.submit(work, interrupted)
        try:
            return done.result()
        except BaseException:
            interrupted.set()
            raise
