"""What the checks use of the world: the Executor's API, its data plane, its process, and the time."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from workers.drivers.answers import Answer

__all__ = ["Api", "Clock", "Outage", "Response", "SystemClock", "Traffic"]


class Api(Protocol):
    """Calls to the Executor, as by `HttpTransport`."""

    def call(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """One call. Raises `ExecutorClientError` if there is no answer."""
        ...


@dataclass(frozen=True, slots=True)
class Response:
    """What a client of the service gets."""

    status: int
    """0 if there is no answer."""

    seconds: float


class Traffic(Protocol):
    """Requests to the service, through the data plane that injects the faults."""

    service: str
    path: str
    """The path whose requests the faults hit."""

    def send(self, suffix: str = "", headers: Mapping[str, str] | None = None) -> Response:
        """One request to the path, with the suffix behind it."""
        ...


@dataclass(frozen=True, slots=True)
class Outage:
    """How the Executor's process is taken away, and brought back."""

    begin: Callable[[], None]
    """Raises `SkippedError` if it cannot."""

    end: Callable[[], None]
    """Raises `SkippedError` if it cannot."""


class Clock(Protocol):
    """The time."""

    def now(self) -> datetime:
        """The date and time in UTC."""
        ...

    def steady_s(self) -> float:
        """Seconds by a clock that cannot be set."""
        ...

    def sleep(self, seconds: float) -> None:
        """Return that much later."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now(self) -> datetime:
        """The date and time in UTC."""
        return datetime.now(UTC)

    def steady_s(self) -> float:
        """Seconds by a clock that cannot be set."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Return that much later."""
        time.sleep(seconds)
