"""Cutting what an Executor sends to a size that a result may have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic_core import to_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic import JsonValue

__all__ = ["cut_json", "cut_lines"]

COMMA = len(",")


def cut_json(value: JsonValue, max_bytes: int) -> tuple[JsonValue, bool]:
    """The value in at most `max_bytes` of JSON, and whether anything is missing.

    Lists lose items from their end, all else stays: what is left of a trace are whole spans.
    None where the rest is too long even with no items at all.
    """
    if _size(value) <= max_bytes:
        return value, False
    return (_cut(value, max_bytes) if _least(value) <= max_bytes else None), True


def cut_lines(lines: Sequence[str], max_bytes: int) -> tuple[list[str], bool]:
    """As many leading lines as fit into `max_bytes` of JSON; whether any are missing."""
    kept: list[str] = []
    left = max_bytes
    for line in lines:
        left -= _size(line) + COMMA
        if left < 0:
            return kept, True
        kept.append(line)
    return kept, False


def _cut(value: JsonValue, max_bytes: int) -> JsonValue:
    """As much of the value as fits. Its least does."""
    match value:
        case list():
            return _cut_list(value, max_bytes)
        case dict():
            return _cut_object(value, max_bytes)
    return value


def _cut_list(items: list[JsonValue], max_bytes: int) -> list[JsonValue]:
    kept: list[JsonValue] = []
    left = max_bytes - len("[]")
    for item in items:
        left -= COMMA
        size = _size(item)
        if size > left:
            return [*kept, _cut(item, left)] if _least(item) <= left else kept
        kept.append(item)
        left -= size
    return kept


def _cut_object(members: dict[str, JsonValue], max_bytes: int) -> dict[str, JsonValue]:
    kept: dict[str, JsonValue] = {}
    spare = max_bytes - _least(members)
    for name, member in members.items():
        least = _least(member)
        kept[name] = _cut(member, least + spare)
        spare -= _size(kept[name]) - least
    return kept


def _least(value: JsonValue) -> int:
    """The size of the value with all its lists empty."""
    match value:
        case list():
            return len("[]")
        case dict():
            members = (_size(name) + len(":") + _least(each) + COMMA for name, each in value.items())
            return len("{}") + sum(members)
    return _size(value)


def _size(value: JsonValue) -> int:
    """Bytes of its JSON, by the writer that results are written with."""
    return len(to_json(value))
