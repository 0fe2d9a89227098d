"""URLs that may hold a password: checked, and shown without it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, parse_qs, urlsplit

from dispatcher.limits import SECONDS_RULE, seconds_in

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "HIDDEN",
    "REDIS_PORT",
    "address_of",
    "check_redis_url",
    "is_broker",
    "redis_options",
    "shown_url",
    "split_url",
    "why_no_broker",
]

REDIS_PORT = 6379
HIDDEN = "***"
"""What is shown in the place of a secret."""

OF_REDIS = {
    "username",
    "password",
    "db",
    "protocol",
    "client_name",
    "health_check_interval",
    "max_connections",
    "retry_on_timeout",
    "socket_connect_timeout",
    "socket_keepalive",
    "socket_timeout",
}
"""The options of a Redis URL that make sense here. At others redis-py raises a TypeError when it connects."""

OF_TLS = {
    "ssl_ca_certs",
    "ssl_ca_data",
    "ssl_ca_path",
    "ssl_cert_reqs",
    "ssl_certfile",
    "ssl_check_hostname",
    "ssl_ciphers",
    "ssl_keyfile",
    "ssl_min_version",
    "ssl_password",
}
"""Those of a `rediss://` URL."""

_SECONDS = (SECONDS_RULE, seconds_in)
_FROM_0 = ("must be a whole number from 0 on", lambda value: isinstance(value, int) and value >= 0)

RULES: dict[str, tuple[str, Callable[[object], object]]] = {
    "client_name": ("must be visible ASCII", lambda value: re.fullmatch("[!-~]+", str(value))),
    "health_check_interval": _FROM_0,
    "max_connections": _FROM_0,
    "socket_connect_timeout": _SECONDS,
    "socket_timeout": _SECONDS,
}
"""What redis-py does not check before it connects, in words, and whether a value is so."""

CERTIFICATE_CHECKS = {"required", "optional", "none"}
"""How far the certificate of a Redis is checked, in redis-py's words."""

INVALID = "must be a valid URL; in a user's name or password write special characters as in %2F"


def split_url(url: str) -> SplitResult:
    """The parts of a URL. Raises `ValueError`, whose message shows nothing of it.

    `urllib` takes a part of a password for a path if a `/`, `?` or `#` is in it, and shows it in messages.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
        (parts.hostname or "").encode("idna")  # as any socket does
    except ValueError:
        port, parts = None, SplitResult("", "", "@", "", "")
    if "@" in parts.path + parts.query + parts.fragment or port == 0 or re.search(r"\s", url):
        raise ValueError(INVALID)
    return parts


def shown_url(url: str) -> str:
    """A valid URL with `***` for its user and password, and for its query."""
    parts = split_url(url)
    _, user, host = parts.netloc.rpartition("@")
    address = url.partition("#")[0].partition("?")[0]
    if user:
        address = f"{parts.scheme}://{HIDDEN}@{host}{parts.path}"
    return address + (f"?{HIDDEN}" if parts.query else "") + (f"#{HIDDEN}" if parts.fragment else "")


def address_of(url: str, default_port: int) -> str:
    """Scheme, host, port and path of a valid URL: `redis://127.0.0.1:6379/0`."""
    parts = split_url(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}:{parts.port or default_port}{parts.path}"


def check_redis_url(url: str) -> None:
    """Raises `ValueError`, whose message shows nothing of the URL."""
    parts = split_url(url)
    if not url.startswith(("redis://", "rediss://")) or not parts.hostname:
        raise ValueError("must be a URL such as redis://127.0.0.1:6379/0")
    if not re.fullmatch(r"/?\d*/?", parts.path, re.ASCII):
        raise ValueError("must have the number of a database as its path, if any")
    known = OF_REDIS | (OF_TLS if parts.scheme == "rediss" else set())
    if not set(parse_qs(parts.query)) <= known:
        raise ValueError(f"may have as options in its query: {', '.join(sorted(known))}")
    found = redis_options(url)
    if found.get("ssl_cert_reqs", "required") not in CERTIFICATE_CHECKS:
        raise ValueError("must have required, optional or none as its ssl_cert_reqs, if any")
    if found.get("protocol", 3) not in {2, 3}:
        raise ValueError("must have 2 or 3 as its protocol, if any")
    for name, (rule, keeps) in RULES.items():
        if name in found and not keeps(found[name]):
            raise ValueError(f"has a {name} that {rule}")


def is_broker(scheme: str) -> bool:
    """Whether Celery has a transport of this name. `sqla+sqlite` is one of `sqla`."""
    from kombu.transport import TRANSPORT_ALIASES  # noqa: PLC0415 (only for a broker of its own)

    return scheme.partition("+")[0] in TRANSPORT_ALIASES


def why_no_broker(scheme: str) -> str | None:
    """Which package of a known broker is not installed, in words. None if nothing is missing."""
    from kombu.connection import Connection  # noqa: PLC0415 (only for a broker of its own)

    try:
        Connection(f"{scheme}://").transport  # type: ignore[no-untyped-call] # noqa: B018 (it connects to nothing)
    except (ImportError, RuntimeError, NameError) as exc:
        return f"needs a package that is not installed, for {scheme}: {exc}; see Celery's page on this broker"
    return None


def redis_options(url: str) -> dict[str, object]:
    """The options in the query of a Redis URL, as redis-py reads them. Raises `ValueError`."""
    if not split_url(url).query:
        return {}
    from redis.connection import parse_url  # noqa: PLC0415 (takes longer to import than the settings do)

    return dict(parse_url(url))  # type: ignore[no-untyped-call]
