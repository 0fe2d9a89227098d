"""The waker: publishes the wake-ups of plans that are due. One thread in every worker process."""

from __future__ import annotations

import logging
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from dispatcher.errors import LedgerUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from dispatcher.ledger import Ledger
    from dispatcher.settings import WakerSettings

__all__ = ["Waker"]

RESERVE_THREADS = 4

LEAST_SLEEP_S = 0.02
"""Between two looks, so that plans which fall due one after the other are woken together."""

logger = logging.getLogger(__name__)


class Waker:
    """Claims due plans and publishes their wake-ups, until it is stopped.

    A cancelled plan that no worker takes up, for all are busy, it gives to one of its reserve threads.

    It sleeps until the next plan is due, but no longer than `max_sleep_sec`, for another process may park
    a plan meanwhile, and `idle_sleep_sec` where there are no plans. `expect` tells it of plans that this
    process lets go.
    """

    def __init__(self, ledger: Ledger, settings: WakerSettings, take: Callable[[str], object]) -> None:
        """`take` acts on the plan with the given id, in the calling thread."""
        self._ledger = ledger
        self._max_sleep_s = settings.max_sleep_sec
        self._idle_sleep_s = settings.idle_sleep_sec
        self._take = take
        self._reserve = ThreadPoolExecutor(RESERVE_THREADS, thread_name_prefix="waker-reserve")
        self._changed = threading.Condition()
        self._next_look = 0.0
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="waker", daemon=True)

    def start(self) -> None:
        """Begin, in a thread of its own."""
        self._thread.start()

    def stop(self) -> None:
        """End, after the batch that is under way."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        self._thread.join()
        self._reserve.shutdown(cancel_futures=True)

    def expect(self, after_ms: int) -> None:
        """Look again in `after_ms` at the latest. Any thread may call this."""
        look = time.monotonic() + after_ms / 1000
        with self._changed:
            if look < self._next_look:
                self._next_look = look
                self._changed.notify()

    def wake_due(self) -> float:
        """Wake all plans that are due, up to one batch. Seconds until the next look."""
        try:
            claim = self._ledger.claim_due()
        except LedgerUnavailableError as exc:
            logger.warning("the waker waits for Redis: %s", exc)
            return self._max_sleep_s
        self._ledger.wake(claim.wake_ups)
        for wake_up in claim.wake_ups:
            if wake_up.urgent:
                self._reserve.submit(self._take, wake_up.plan_id)
        spread = random.uniform(0.75, 1.0)  # noqa: S311 (a fleet should not look in step)
        if claim.next_due_ms is None:
            return self._idle_sleep_s * spread
        return min(self._max_sleep_s * spread, claim.next_due_ms / 1000)

    def _run(self) -> None:
        while not self._stopped:
            with self._changed:
                self._next_look = time.monotonic() + self._idle_sleep_s
            try:
                sleep_s = self.wake_due()
            except Exception:  # whatever it was, plans wait for the next round
                logger.exception("the waker stumbled")
                sleep_s = self._max_sleep_s
            self._sleep(sleep_s)

    def _sleep(self, sleep_s: float) -> None:
        time.sleep(LEAST_SLEEP_S)
        with self._changed:
            self._next_look = min(self._next_look, time.monotonic() + sleep_s)
            while not self._stopped and (left := self._next_look - time.monotonic()) > 0:
                self._changed.wait(left)
