"""Celery's pool of threads, without the futures.

A future for each step, with its lock, its condition and a callback that nobody waits for, costs more than
handing over the step.
"""

from __future__ import annotations

import logging
import threading
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from celery.concurrency.base import BasePool

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["StepPool"]

logger = logging.getLogger(__name__)


class StepPool(BasePool):  # type: ignore[misc]  # celery ships no types
    """As many threads as the worker's concurrency, which take one step after the other.

    When it stops, steps under way are finished, and those that none has taken are dropped: their plans are in
    the ledger, and are woken again.
    """

    body_can_be_buffer = True
    signal_safe = False

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._steps: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []

    def on_start(self) -> None:
        self._threads = [
            threading.Thread(target=self._run, name=f"step-{number}", daemon=True)
            for number in range(self.limit)
        ]
        for thread in self._threads:
            thread.start()

    def on_stop(self) -> None:
        try:
            while True:
                self._steps.get_nowait()
        except Empty:
            pass
        for _ in self._threads:
            self._steps.put(None)
        for thread in self._threads:
            thread.join()

    def on_terminate(self) -> None:
        self.on_stop()

    def apply_async(self, target: Callable[[], object], **_: Any) -> None:
        """Have a thread call `target`. Nobody hears what comes of it."""
        self._steps.put(target)

    def _run(self) -> None:
        while (step := self._steps.get()) is not None:
            try:
                step()
            except BaseException:  # the thread goes on with the next one, whatever it was
                logger.exception("a step broke off")

    def _get_info(self) -> dict[str, Any]:
        return {**super()._get_info(), "threads": len(self._threads)}
