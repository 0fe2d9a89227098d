"""A service, and the requests that a probe sends to it. Each latency counts from the planned moment."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from dispatcher.errors import (
    ExecutorClientError,
    ExecutorConnectionError,
    ExecutorTimeoutError,
    InvalidSettingsError,
)
from workers.drivers.transport import HttpTransport
from workers.observers.pace import Line
from workers.observers.tally import UNREADABLE, Probe

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from dispatcher.settings.observers import ServiceSettings
    from workers.observers.pace import Slot
    from workers.observers.request import ProbeRequest

__all__ = ["HttpTarget", "ProbeLine", "Target"]

NOT_SENT = "not sent"

REUSE_WITHIN_S = 0.75
"""How long a connection may be idle between two requests.

Services close idle ones after a second or more. A request that meets such an end gets no answer, although the
service is healthy.
"""


class ProbeLine(Line, Protocol):
    """A line with the outcomes of its requests."""

    def probes(self) -> list[Probe]:
        """All requests that were sent in time. Those without an answer are given up now."""
        ...


class Target(Protocol):
    """One service. Safe to share between threads."""

    def now(self) -> float:
        """The present, in seconds, on the clock of its lines."""
        ...

    def line(self, request: ProbeRequest, ends_at: float) -> ProbeLine:
        """For the requests of one measurement, none of which is held for longer than until `ends_at`."""
        ...

    def close(self) -> None:
        """Let go of all connections, once the requests that are under way have ended."""
        ...


class HttpTarget:
    """A service on the network. Its threads and connections are kept between measurements. See `Target`."""

    def __init__(self, name: str, service: ServiceSettings, concurrency: int, longest_s: float) -> None:
        """`concurrency` is how many requests may be under way; none takes longer than `longest_s`.

        Raises `InvalidSettingsError` for certificate files that cannot be used.
        """
        try:
            config = service.model_copy(update={"read_timeout_sec": longest_s})
            self._transport = HttpTransport(config, concurrency, REUSE_WITHIN_S)
        except InvalidSettingsError as exc:
            raise exc.within(f"services.{name}") from exc
        self._name = name
        self._concurrency = concurrency
        self._open_pool()

    def now(self) -> float:
        """See `Target`."""
        return time.monotonic()

    def line(self, request: ProbeRequest, ends_at: float) -> ProbeLine:
        """See `Target`."""
        if self._process != os.getpid():  # a fork has none of its parent's threads
            self._open_pool()
        return _HttpLine(self._pool, lambda slot: _probe(self._transport, request, slot, ends_at), ends_at)

    def close(self) -> None:
        """See `Target`."""
        self._pool.shutdown(cancel_futures=True)
        self._transport.close()

    def _open_pool(self) -> None:
        self._process = os.getpid()
        self._pool = ThreadPoolExecutor(self._concurrency, f"probe-{self._name}")


class _HttpLine:
    """The requests of one measurement. See `ProbeLine`."""

    def __init__(self, pool: ThreadPoolExecutor, ask: Callable[[Slot], Probe | None], ends_at: float) -> None:
        self._pool = pool
        self._ask = ask
        self._ends_at = ends_at
        self._open: dict[Future[Probe | None], Slot] = {}
        self._answered: list[Future[Probe | None]] = []
        self._changed = threading.Condition()

    def sleep_until(self, at: float) -> None:
        time.sleep(max(0.0, at - time.monotonic()))

    def send(self, slot: Slot) -> None:
        future = self._pool.submit(copy_context().run, self._ask, slot)
        with self._changed:
            self._open[future] = slot
        future.add_done_callback(self._has_ended)

    def is_answered(self, by: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: not self._open, max(0.0, by - time.monotonic()))

    def probes(self) -> list[Probe]:
        with self._changed:
            given_up, self._open = self._open, {}
        ended = [future.result() for future in self._answered]
        ended += [_result(future, slot, self._ends_at) for future, slot in given_up.items()]
        return [probe for probe in ended if probe is not None]

    def _has_ended(self, future: Future[Probe | None]) -> None:
        """Count its answer, unless it has been given up."""
        with self._changed:
            if self._open.pop(future, None) is not None:
                self._answered.append(future)
                self._changed.notify_all()


def _probe(transport: HttpTransport, request: ProbeRequest, slot: Slot, ends_at: float) -> Probe | None:
    """None for a request that was not sent, because it would arrive after the fault's end."""
    began = time.monotonic()
    left_s = min(slot.gives_up_at, ends_at) - began
    if began >= slot.latest_at:
        return None
    if left_s <= 0:
        return _given_up(slot, ends_at, NOT_SENT)
    return replace(_sent(transport, request, slot, ends_at, left_s), late_ms=int((began - slot.at) * 1000))


def _sent(
    transport: HttpTransport, request: ProbeRequest, slot: Slot, ends_at: float, left_s: float
) -> Probe:
    try:
        answer = transport.call(request.method, request.path, request.body, request.headers, within_s=left_s)
    except ExecutorTimeoutError:
        return _given_up(slot, ends_at, "timeout")
    except ExecutorClientError as error:
        outcome = error.reason if isinstance(error, ExecutorConnectionError) else UNREADABLE
        return Probe(slot.planned_ms, _us_since(slot.at), outcome, expected=False, why=error.message)
    latency_us, status = _us_since(slot.at), answer.status
    return Probe(slot.planned_ms, latency_us, str(status), expected=request.expects(status))


def _result(future: Future[Probe | None], slot: Slot, ends_at: float) -> Probe | None:
    if future.done() and not future.cancelled():
        return future.result()
    if time.monotonic() >= slot.latest_at and future.cancel():
        return None
    return _given_up(slot, ends_at, NOT_SENT if future.cancel() else "timeout")


def _given_up(slot: Slot, ends_at: float, outcome: str) -> Probe:
    """A request that was held until now. It is incomplete if it might have been answered in time."""
    incomplete = outcome == NOT_SENT or ends_at < slot.gives_up_at
    held_us = _us_since(slot.at)
    return Probe(slot.planned_ms, held_us, outcome, expected=False, incomplete=incomplete)


def _us_since(at: float) -> int:
    return max(0, round((time.monotonic() - at) * 1e6))
