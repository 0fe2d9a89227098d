"""JSON as RFC 8259 has it, in the parts where Python is more generous."""

from __future__ import annotations

import itertools
import json
import math
import re
from typing import Any

__all__ = ["loads"]

MAX_DEPTH = 100

STRING = re.compile(rb'"(?:[^"\\]|\\.)*"')
STEPS = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
NO_BRACKETS = bytes(set(range(256)) - set(STEPS))


def loads(text: bytes) -> Any:
    """The value.

    Raises `ValueError`, also for NaN and infinity, duplicate names, half characters, any encoding but UTF-8,
    and for a value that is nested more deeply than any reader must bear (RFC 8259, section 9).
    """
    if _depth(text) > MAX_DEPTH:
        raise ValueError(f"it is nested more than {MAX_DEPTH} deep")
    value = DECODER.decode(text.decode("utf-8-sig"))
    if b"\\u" in text:
        _refuse_half_characters(value)
    return value


def _depth(text: bytes) -> int:
    """How deeply lists and objects are nested, if it is JSON."""
    if text.count(b"[") + text.count(b"{") <= MAX_DEPTH:
        return 0
    brackets = STRING.sub(b"", text).translate(None, delete=NO_BRACKETS)
    return max(itertools.accumulate(map(STEPS.__getitem__, brackets)), default=0)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"{digits[:20]} is too large a number")
    return number


def _without_duplicates(members: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(members)
    if len(found) < len(members):
        names = [name for name, _ in members]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice[:50]!r} is there twice")
    return found


def _refuse_half_characters(value: object) -> None:
    """Half of a surrogate pair is no text, and could not be stored."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as exc:
        raise ValueError("it has half of a surrogate pair") from exc


DECODER = json.JSONDecoder(
    parse_constant=_refuse_constant, parse_float=_finite, object_pairs_hook=_without_duplicates
)
