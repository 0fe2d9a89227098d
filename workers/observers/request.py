"""How one API of a service is probed, put together from the sections of the settings."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self
from urllib.parse import quote

from dispatcher.settings.observers import ApiSettings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dispatcher.settings.observers import ProbeSettings, RequestSettings, ServiceSettings

__all__ = ["Load", "ProbeRequest"]

SAFE = "/%:@!$&'()*+,;=~"
"""What a path may hold as it is (RFC 3986, 3.3)."""

EXPECTED_STATUSES = ("2xx", "3xx")
REQUEST_TIMEOUT_S = 35.0
"""The longest delay fault, 30 s, and time for the answer itself."""

REQUESTS_PER_SEC = 5
CONCURRENCIES = range(100, 1001)
"""Between these bounds the default follows from the rate."""

RECOVERY_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Load:
    """How many requests go to a service, and how long it may take to become healthy again."""

    requests_per_sec: int
    concurrency: int
    recovery_timeout_s: float
    longest_request_s: float
    """How long a request to any of its APIs may take."""

    @classmethod
    def of(cls, observer: ProbeSettings, service: ServiceSettings) -> Self:
        """The service's own settings come first.

        By default all requests of one plan may be under way at once."""
        rate = service.requests_per_sec or observer.requests_per_sec or REQUESTS_PER_SEC
        longest_s = max(ProbeRequest.of(observer, service, api).timeout_s for api in ("", *service.apis))
        return cls(
            rate,
            service.concurrency or observer.concurrency or _enough(rate, longest_s),
            service.recovery_timeout_sec or observer.recovery_timeout_sec or RECOVERY_TIMEOUT_S,
            longest_s,
        )


@dataclass(frozen=True, slots=True, repr=False)
class ProbeRequest:
    """What is sent, and which answers are not errors. It has secrets, and therefore no repr."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes | None
    expected_statuses: tuple[str, ...]
    timeout_s: float

    @classmethod
    def of(
        cls,
        observer: ProbeSettings,
        service: ServiceSettings,
        api: str,
        plan_headers: Mapping[str, str] | None = None,
    ) -> Self:
        """The API's settings come first, then the service's, then the observer's. Headers are merged.

        `plan_headers` come before all others: without them the plan's fault would not hit the request.
        """
        own = service.apis.get(api, ApiSettings())
        sections: tuple[RequestSettings, ...] = (own, service, observer)
        bodies = [each.body.get_secret_value() for each in sections if each.body is not None]
        return cls(
            method=next((each.method for each in sections if each.method), "GET"),
            path=own.path or quote(api, safe=SAFE),
            headers=_headers(service.host_header, plan_headers or {}, sections),
            body=bodies[0].encode() if bodies else None,
            expected_statuses=next(
                (each.expected_statuses for each in sections if each.expected_statuses), EXPECTED_STATUSES
            ),
            timeout_s=next(
                (each.request_timeout_sec for each in sections if each.request_timeout_sec), REQUEST_TIMEOUT_S
            ),
        )

    def expects(self, status: int) -> bool:
        """Whether an answer with this status is not an error."""
        return not {str(status), f"{status // 100}xx"}.isdisjoint(self.expected_statuses)


def _enough(requests_per_sec: int, longest_s: float) -> int:
    """How many requests of one plan may be under way if none is answered."""
    return min(max(math.ceil(requests_per_sec * longest_s), CONCURRENCIES[0]), CONCURRENCIES[-1])


def _headers(
    host: str | None, first: Mapping[str, str], sections: tuple[RequestSettings, ...]
) -> dict[str, str]:
    """By their names, regardless of case. `first`, then the first section with a name has the say."""
    headers: dict[str, tuple[str, str]] = {} if host is None else {"host": ("Host", host)}
    headers |= {name: (name, value) for name, value in first.items()}
    for section in sections:
        for name, value in section.headers.items():
            headers.setdefault(name.lower(), (name, value.get_secret_value()))
    return dict(headers.values())
