"""A plan's failed attempts, as the ledger keeps them: the last ones, each with a short sentence.

The field `failures` is a JSON list of `[ms, attempt, sentence]`. Plans without a failed attempt have none.
"""

from __future__ import annotations

import json
from typing import NamedTuple

from dispatcher.ledger.moments import moment_of
from dispatcher.models import FailedAttempt

__all__ = ["failed_attempts", "with_failure"]

MOST_KEPT = 20
LONGEST_SENTENCE = 300
"""Characters that are kept of each."""


class _Row(NamedTuple):
    at_ms: int
    attempt: int
    sentence: str


def with_failure(stored: str, at_ms: int, sentence: str) -> str:
    """The field once another attempt has failed, at `at_ms` on the server's clock. `stored`: as it was."""
    rows = _rows(stored)
    attempt = rows[-1].attempt + 1 if rows else 1
    return json.dumps([*rows, _Row(at_ms, attempt, _cut(sentence))][-MOST_KEPT:], separators=(",", ":"))


def failed_attempts(stored: str) -> tuple[FailedAttempt, ...]:
    """The failed attempts in the field, the oldest first. What cannot be read is left out."""
    return tuple(
        FailedAttempt(at=moment_of(row.at_ms), attempt=row.attempt, cause=row.sentence)
        for row in _rows(stored)
    )


def _rows(stored: str) -> list[_Row]:
    """A history that another program has spoiled does not stop a plan."""
    try:
        found = json.loads(stored or "[]")
        return [_row(*each) for each in found]
    except (TypeError, ValueError, OverflowError, RecursionError):
        return []


def _row(at_ms: object, attempt: object, sentence: object) -> _Row:
    """Raises `ValueError` unless these are what `with_failure` writes."""
    if not (isinstance(at_ms, int) and isinstance(attempt, int) and isinstance(sentence, str)):
        raise ValueError("a failed attempt is a time, a number and a sentence")
    moment_of(at_ms)
    return _Row(at_ms, attempt, sentence)


def _cut(sentence: str) -> str:
    return sentence if len(sentence) <= LONGEST_SENTENCE else sentence[: LONGEST_SENTENCE - 1] + "…"
