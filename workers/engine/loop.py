"""A thread that repeats one turn for as long as its worker lives."""

from __future__ import annotations

import logging
import random
import threading
import time
from abc import ABC, abstractmethod

from dispatcher.errors import LedgerUnavailableError

__all__ = ["Loop"]

FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 2.0

logger = logging.getLogger(__name__)


class Loop(ABC):
    """Trouble with Redis, or a defect, slows the turns down and never ends them."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._changed = threading.Condition()
        self._next_turn = 0.0
        self._stopping = False
        self._pause_s = 0.0
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @abstractmethod
    def turn(self) -> float:
        """Do what is due now; seconds until the next turn.

        Raises `LedgerUnavailableError`; the next turn comes after a pause that grows to two seconds.
        """

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End after the turn that is under way, and wait for that."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join()

    def expect(self, after_s: float = 0.0) -> None:
        """Have the next turn in `after_s` seconds at the latest. Any thread may call this."""
        at = time.monotonic() + after_s
        if at < self._next_turn:
            with self._changed:
                self._next_turn = min(self._next_turn, at)
                self._changed.notify()

    def _run(self) -> None:
        while not self._stopping:
            with self._changed:
                self._next_turn = time.monotonic() + LONGEST_PAUSE_S
            wait_s = self._guarded_turn()
            with self._changed:
                self._next_turn = min(self._next_turn, time.monotonic() + wait_s)
                while not self._stopping and (left_s := self._next_turn - time.monotonic()) > 0:
                    self._changed.wait(left_s)

    def _guarded_turn(self) -> float:
        try:
            wait_s = self.turn()
        except LedgerUnavailableError as exc:
            if not self._pause_s:
                logger.warning("the %s waits for Redis: %s", self._name, exc)
        except Exception:
            logger.exception("a defect in the %s; it goes on", self._name)
        else:
            if self._pause_s:
                logger.warning("the %s goes on", self._name)
                self._pause_s = 0.0
            return wait_s
        self._pause_s = min(LONGEST_PAUSE_S, max(FIRST_PAUSE_S, 2 * self._pause_s))
        time.sleep(self._pause_s * random.uniform(0.5, 1.0))  # noqa: S311 (a fleet should not ask in step)
        return 0.0
