"""URLs that may hold a password: checked, and shown without it."""

from __future__ import annotations

from urllib.parse import SplitResult, urlsplit

__all__ = ["HIDDEN", "address_of", "redis_options", "shown_url", "split_url"]

HIDDEN = "***"
"""What is shown in the place of a secret."""

INVALID = "must be a valid URL; in a user's name or password write special characters as in %2F"


def split_url(url: str) -> SplitResult:
    """The parts of a URL. Raises `ValueError`, whose message shows nothing of it.

    `urllib` takes a part of a password for a path if a `/`, `?` or `#` is in it, and shows it in messages.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        port, parts = None, SplitResult("", "", "@", "", "")
    if "@" in parts.path + parts.query + parts.fragment or port == 0:
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


def redis_options(url: str) -> dict[str, object]:
    """The options in the query of a Redis URL, as redis-py reads them. Raises `ValueError`."""
    if not split_url(url).query:
        return {}
    from redis.connection import parse_url  # noqa: PLC0415 (takes longer to import than the settings do)

    return dict(parse_url(url))  # type: ignore[no-untyped-call]
