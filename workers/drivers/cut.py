"""Cutting what an Executor sends to a size that a result may have."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic import JsonValue

__all__ = ["cut_json", "cut_lines"]

COMMA = 1


def cut_json(value: JsonValue, max_bytes: int) -> tuple[JsonValue, bool]:
    """The value with as many of its leading items as fit into `max_bytes` of JSON; whether any are missing.

    What is left keeps its shape: a list loses items from its end, an object the members that do not fit.
    """
    if _size(value) <= max_bytes:
        return value, False
    return _Cutter(max_bytes).cut(value), True


def cut_lines(lines: Sequence[str], max_bytes: int) -> tuple[list[str], bool]:
    """As many leading lines as fit; whether any are missing."""
    kept: list[str] = []
    left = max_bytes
    for line in lines:
        left -= _size(line) + COMMA
        if left < 0:
            return kept, True
        kept.append(line)
    return kept, False


class _Cutter:
    def __init__(self, max_bytes: int) -> None:
        self._left = max_bytes

    def cut(self, value: JsonValue) -> JsonValue:
        """As much of the value as fits into what is left."""
        match value:
            case list():
                return self._cut_list(value)
            case dict():
                return self._cut_object(value)
        return value if self._takes(_size(value)) else None

    def _cut_list(self, items: list[JsonValue]) -> list[JsonValue]:
        kept: list[JsonValue] = []
        self._takes(len("[]"))
        for item in items:
            size = _size(item) + COMMA
            if size <= self._left:
                self._left -= size
                kept.append(item)
                continue
            if isinstance(item, list | dict):
                kept.append(self.cut(item))
            break
        return kept

    def _cut_object(self, members: dict[str, JsonValue]) -> dict[str, JsonValue]:
        kept: dict[str, JsonValue] = {}
        self._takes(len("{}"))
        for name, member in members.items():
            if self._takes(_size(name) + len(":") + COMMA):
                kept[name] = self.cut(member)
        return kept

    def _takes(self, size: int) -> bool:
        if size > self._left:
            return False
        self._left -= size
        return True


def _size(value: JsonValue) -> int:
    return len(json.dumps(value, separators=(",", ":")))
