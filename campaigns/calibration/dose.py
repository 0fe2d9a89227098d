"""What really happened while a fault was in force, and whether an observation says the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from campaigns.traffic import Request
    from dispatcher import RawObservation

Window = tuple[float, float]
"""When something began and ended, in seconds since 1970."""

ERROR_RATE_WITHIN = 0.01
LATENCY_WITHIN_MS = 2.0
LATENCY_WITHIN_SHARE = 0.1
REQUESTS_WITHIN_SHARE = 0.01
WINDOW_WITHIN_S = 0.3

FIRST_ERROR_STATUS = 400
ROUNDING = 1e-9


@dataclass(frozen=True)
class Dose:
    """What the clients counted in a window."""

    requests: int
    errors: int
    latency_ms: float

    @property
    def error_rate(self) -> float:
        """Share of the requests without a good answer."""
        return self.errors / self.requests if self.requests else 0.0


def dose_of(requests: Iterable[Request], window: Window) -> Dose:
    """What became of the requests that were sent in the window. All of them have ended."""
    began, ended = window
    met = [request for request in requests if began <= request.sent <= ended]
    errors = sum(not request.status or request.status >= FIRST_ERROR_STATUS for request in met)
    latency_ms = sum(request.latency_ms for request in met) / len(met) if met else 0.0
    return Dose(len(met), errors, latency_ms)


def common(real: Window, claimed: Window) -> Window:
    """The part of a claimed window in which the fault really was in force."""
    return max(real[0], claimed[0]), min(real[1], claimed[1])


def misses(observation: RawObservation, dose: Dose, window: Window) -> list[str]:
    """The figures of an observation that differ from what was counted. `window` is the real one."""
    inside = {
        "requests": _near(observation.requests, dose.requests, REQUESTS_WITHIN_SHARE * dose.requests),
        "error_rate": _near(observation.error_rate, dose.error_rate, ERROR_RATE_WITHIN),
        "latency_ms": _near(
            observation.latency_ms,
            dose.latency_ms,
            max(LATENCY_WITHIN_MS, LATENCY_WITHIN_SHARE * dose.latency_ms),
        ),
        **{
            name: _near(None if moment is None else moment.timestamp(), real, WINDOW_WITHIN_S)
            for name, moment, real in (
                ("started_at", observation.started_at, window[0]),
                ("ended_at", observation.ended_at, window[1]),
            )
        },
    }
    return [name for name, near in inside.items() if not near]


def holds(observation: RawObservation, error_share: float) -> bool:
    """Whether the share of errors that was set is in the interval of the error rate."""
    low, high = observation.error_rate_low, observation.error_rate_high
    return low is not None and high is not None and low - ROUNDING <= error_share <= high + ROUNDING


def _near(observed: float | None, real: float, within: float) -> bool:
    return observed is not None and abs(observed - real) <= within + ROUNDING
