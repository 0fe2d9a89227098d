"""An Executor's answer: its JSON, and the error that its status means."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import jiter
from pydantic_core import to_json

from dispatcher.errors import ExecutorProtocolError
from workers.drivers.failures import status_row

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dispatcher.errors import ExecutorClientError

__all__ = ["Answer", "has_no_number", "parse_json", "retry_after_s"]

EXCERPT_BYTES = 200
LONGEST_WORDS = 1_000
"""Characters of an Executor's own message that an error quotes."""

SUCCESS = range(200, 300)
PARTIAL = 206
"""A part of an answer, which was not asked for. What it lacks says nothing."""

LONGEST_RETRY_AFTER_S = 86_400.0

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
MAX_CONTAINERS = 250_000
MAX_NAMES = 350_000
"""How many lists and objects, and how many names in objects, an answer may have.

Python takes up to 2 microseconds for each, and no other thread runs meanwhile. Those in texts count as well.
"""


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer of the Executor."""

    call: str
    """The request, as in `GET http://localhost:8000/v1/health`."""

    status: int
    body: bytes
    retry_after_s: float | None = None
    """How long the Executor asks to be left alone, in seconds."""

    content_type: str = ""
    """The header `Content-Type`."""

    date: str = ""
    """The header `Date`."""

    @property
    def sent_at(self) -> datetime | None:
        """When the server sent it, by its own clock, cut to whole seconds. None if it does not say."""
        try:
            moment = parsedate_to_datetime(self.date)
        except (ValueError, TypeError, OverflowError):
            return None
        return moment if moment.tzinfo is not None else None

    @property
    def ok(self) -> bool:
        """Whether the status is one of success."""
        return self.status in SUCCESS and self.status != PARTIAL

    def json(self) -> Any:
        """The body as JSON. Raises `ExecutorProtocolError`."""
        try:
            return parse_json(self.body)
        except ValueError as exc:
            problem = str(exc)[:EXCERPT_BYTES]
            raise self.protocol_error(f"is not JSON ({problem!r})") from exc

    def protocol_error(self, what: str) -> ExecutorProtocolError:
        """An error that shows the beginning of the answer."""
        excerpt = self.body[:EXCERPT_BYTES].decode("utf-8", "backslashreplace")
        return ExecutorProtocolError(f"{self.call}: the answer {what}; it begins {excerpt!r}")

    def error(self) -> ExecutorClientError:
        """The row of the specification's table for an answer without success."""
        row = status_row(self.status)
        words = self.words
        quoted = f": {words!r}" if words else ""
        message = f"{self.call}: {self.status} {row.failure}{quoted}; {row.advice}"
        return row.error(message, self.status, words, self.retry_after_s)

    @property
    def words(self) -> str:
        """The Executor's own message: its `message` or `error` field, otherwise the beginning of the body."""
        try:
            fields = parse_json(self.body)
        except ValueError:
            fields = None
        if isinstance(fields, dict):
            for name in ("message", "error"):
                if isinstance(fields.get(name), str) and fields[name]:
                    return str(fields[name])[:LONGEST_WORDS]
        return self.body[:EXCERPT_BYTES].decode("utf-8", "backslashreplace")


def parse_json(text: bytes) -> Any:
    """The value of a JSON text in UTF-8 (RFC 8259).

    Raises `ValueError`, also for NaN and infinity, duplicate names and half of a surrogate pair. So do a
    number that no float can hold, an integer of more than 4,300 digits, more than 200 levels, and too many
    parts.
    """
    if text.count(b"[") + text.count(b"{") > MAX_CONTAINERS:
        raise ValueError(f"it has more than {MAX_CONTAINERS:,} lists and objects")
    if text.count(b":") > MAX_NAMES:
        raise ValueError(f"it has more than {MAX_NAMES:,} names in objects")
    json = text.removeprefix(BYTE_ORDER_MARK)
    value = jiter.from_json(json, allow_inf_nan=False, catch_duplicate_keys=True, cache_mode="keys")
    if has_no_number(value):  # such as 1e999
        raise ValueError("it has a number that is too large")
    return value


def has_no_number(value: object) -> bool:
    """Whether there is NaN or infinity in it, which is written as null if null is asked for.

    Raises `ValueError` if it cannot be written as JSON.
    """
    written = to_json(value)
    if b"Infinity" not in written and b"NaN" not in written:
        return False
    return written != to_json(value, inf_nan_mode="null")


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """`Retry-After` in seconds. A date is compared with the Executor's own clock (RFC 9110, 10.2.3).

    None if the header is absent, or is neither a number of seconds nor a date that a clock can hold.
    """
    value = headers.get("Retry-After", "").strip()
    if not value:
        return None
    if value.isascii() and value.isdigit():
        return min(float(value), LONGEST_RETRY_AFTER_S)
    try:
        until = parsedate_to_datetime(value)
        date = headers.get("Date")
        now = parsedate_to_datetime(date) if date else datetime.now(UTC)
        wait_s = (until - now).total_seconds()
    except (ValueError, TypeError, OverflowError):  # TypeError: one of them has no zone
        return None
    return min(max(wait_s, 0.0), LONGEST_RETRY_AFTER_S)
