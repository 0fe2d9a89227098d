"""Truncates what an Executor sends to what a result may hold, in time that grows only with its size."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic_core import to_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic import JsonValue

__all__ = ["truncate_json", "truncate_lines"]

BRACKETS = len("[]")
COMMA = len(",")
COLON = len(":")

MOST_PASSES = 8
"""How often the whole size may be serialized in vain."""


def truncate_json(value: JsonValue, max_bytes: int) -> tuple[JsonValue, bool]:
    """The value in at most `max_bytes` of JSON, and whether anything is missing.

    Lists lose items from their end, and all else stays: what is left of a trace are whole spans.
    None if the rest is too long even without any items.
    """
    size = _size(value)
    if size <= max_bytes:
        return value, False
    truncation = _Truncation(MOST_PASSES * size)
    spare = max_bytes - truncation.core_size(value)
    return (truncation.keep(value, spare)[0] if spare >= 0 else None), True


def truncate_lines(lines: Sequence[str], max_bytes: int) -> tuple[list[str], bool]:
    """As many leading lines as fit into `max_bytes` of JSON, and whether any are missing."""
    kept: list[str] = []
    spare = max_bytes
    for line in lines:
        spare -= _size(line) + COMMA
        if spare < 0:
            return kept, True
        kept.append(line)
    return kept, False


class _Truncation:
    """Keeps whole items as long as they fit, then a part of the first one that does not.

    To see whether an item fits takes its serialization, which is quick, but in vain if it does not fit. After
    `patience` bytes in vain each part is measured by itself. So no depth multiplies the cost.
    """

    def __init__(self, patience: int) -> None:
        self._patience = patience
        self._core_sizes: dict[int, int] = {}
        """Of objects, by their identity."""

    def core_size(self, value: JsonValue) -> int:
        """The size of the value with all its lists empty."""
        if isinstance(value, list):
            return BRACKETS
        if not isinstance(value, dict):
            return _size(value)
        size = self._core_sizes.get(id(value))
        if size is None:
            size = BRACKETS + COMMA * max(len(value) - 1, 0)
            for name, member in value.items():
                size += _size(name) + COLON + self.core_size(member)
            self._core_sizes[id(value)] = size
        return size

    def keep(self, value: JsonValue, spare: int) -> tuple[JsonValue, int]:
        """What fits into the value's core size and `spare` more bytes, and how many of these are left."""
        if isinstance(value, list):
            return self._keep_items(value, spare)
        if not isinstance(value, dict):
            return value, spare
        kept: dict[str, JsonValue] = {}
        for name, member in value.items():
            kept[name], spare = self.keep(member, spare)
        return kept, spare

    def _keep_items(self, items: list[JsonValue], spare: int) -> tuple[JsonValue, int]:
        kept: list[JsonValue] = []
        for item in items:
            left = spare - (COMMA if kept else 0)
            size = _size(item) if self._patience > 0 else None
            if size is not None and size <= left:
                kept.append(item)
                spare = left - size
                continue
            self._patience -= size or 0
            left -= self.core_size(item)
            if left < 0:
                break
            part, spare = self.keep(item, left)
            kept.append(part)
            if size is not None:
                break
        return kept, spare


def _size(value: JsonValue) -> int:
    """Bytes of its JSON, by the serializer that writes results."""
    return len(to_json(value))
