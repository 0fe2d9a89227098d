"""Whether an answer is a whole list. What a part of one lacks may exist all the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import JsonValue

__all__ = ["sign_of_more"]

MORE = (
    *("next", "nextPage", "nextPageToken", "nextCursor", "next_page", "next_page_token", "next_cursor"),
    *("continue", "hasMore", "has_more", "truncated"),
)
"""Fields that are neither empty nor false if there are more items."""

COUNTS = ("total", "totalCount", "total_count", "count")
"""Fields that say how many items there are."""


def sign_of_more(fields: dict[str, JsonValue], count: int) -> str | None:
    """The field that says that a list of `count` items is a part of a longer one. None if none does."""
    for name in COUNTS:
        value = fields.get(name)
        if isinstance(value, int) and value > count:
            return name
    metadata = fields.get("metadata")  # where Kubernetes has it
    inner = sign_of_more(metadata, count) if isinstance(metadata, dict) else None
    return inner or next((name for name in MORE if fields.get(name)), None)
