"""A service, and the requests that a probe sends to it.

Requests are sent at moments that are fixed beforehand, whether earlier ones are answered or not, and each
latency counts from that moment. A target that is slow thus cannot hide how slow it is by holding later
requests back (G. Tene calls that coordinated omission).
"""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor, wait
from contextvars import copy_context
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dispatcher.errors import (
    ExecutorClientError,
    ExecutorConnectionError,
    ExecutorTimeoutError,
    InvalidSettingsError,
)
from workers.drivers.transport import HttpTransport
from workers.observers.tally import UNREADABLE, Probe

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Future

    from dispatcher.settings.observers import ServiceSettings
    from workers.observers.request import ProbeRequest

__all__ = ["Slot", "Target"]

NOT_SENT = "not sent"


@dataclass(frozen=True, slots=True)
class Slot:
    """When one request is to be sent."""

    planned_ms: int
    """On the Redis server's clock, in milliseconds since 1970."""

    at: float
    """The same moment as `time.monotonic` has it, in seconds."""

    gives_up_at: float
    """When it is given up by its own timeout, on that clock."""


class Target:
    """One service. Its threads and connections are kept from look to look. Safe to share between threads."""

    def __init__(self, name: str, service: ServiceSettings, concurrency: int, longest_s: float) -> None:
        """`concurrency` is how many requests may be under way; none takes longer than `longest_s`.

        Raises `InvalidSettingsError` for certificate files that cannot be used.
        """
        try:
            config = service.model_copy(update={"read_timeout_sec": longest_s})
            self._transport = HttpTransport(config, concurrency)
        except InvalidSettingsError as exc:
            raise exc.within(f"services.{name}") from exc
        self._name = name
        self._concurrency = concurrency
        self._open_pool()

    def look(self, request: ProbeRequest, slots: Sequence[Slot], ends_at: float) -> list[Probe]:
        """Send a request in each slot. Returns once all are answered or given up, by `ends_at` at the latest
        (on the clock of `time.monotonic`)."""
        if self._process != os.getpid():  # a fork has none of its parent's threads
            self._open_pool()
        futures: list[Future[Probe]] = []
        for slot in slots:
            time.sleep(max(0.0, slot.at - time.monotonic()))
            futures.append(self._pool.submit(copy_context().run, self._probe, request, slot, ends_at))
        last_s = max((slot.gives_up_at for slot in slots), default=ends_at)
        wait(futures, max(0.0, min(last_s, ends_at) - time.monotonic()))
        return [_result(future, slot, ends_at) for future, slot in zip(futures, slots, strict=True)]

    def close(self) -> None:
        """Let go of all connections, once the requests that are under way have ended."""
        self._pool.shutdown(cancel_futures=True)
        self._transport.close()

    def _open_pool(self) -> None:
        self._process = os.getpid()
        self._pool = ThreadPoolExecutor(self._concurrency, f"probe-{self._name}")

    def _probe(self, request: ProbeRequest, slot: Slot, ends_at: float) -> Probe:
        left_s = min(slot.gives_up_at, ends_at) - time.monotonic()
        if left_s <= 0:
            return _given_up(slot, ends_at, NOT_SENT)
        try:
            answer = self._transport.call(
                request.method, request.path, request.body, request.headers, within_s=left_s
            )
        except ExecutorTimeoutError:
            return _given_up(slot, ends_at, "timeout")
        except ExecutorClientError as error:
            outcome = error.reason if isinstance(error, ExecutorConnectionError) else UNREADABLE
            return Probe(slot.planned_ms, _us_since(slot.at), outcome, expected=False, why=error.message)
        latency_us, status = _us_since(slot.at), answer.status
        return Probe(slot.planned_ms, latency_us, str(status), expected=request.expects(status))


def _result(future: Future[Probe], slot: Slot, ends_at: float) -> Probe:
    if future.done():
        return future.result()
    return _given_up(slot, ends_at, NOT_SENT if future.cancel() else "timeout")


def _given_up(slot: Slot, ends_at: float, outcome: str) -> Probe:
    """A request that was held until now. It is incomplete if it might have been answered in time."""
    incomplete = outcome == NOT_SENT or ends_at < slot.gives_up_at
    held_us = _us_since(slot.at)
    return Probe(slot.planned_ms, held_us, outcome, expected=False, incomplete=incomplete)


def _us_since(moment: float) -> int:
    return max(0, round((time.monotonic() - moment) * 1e6))
