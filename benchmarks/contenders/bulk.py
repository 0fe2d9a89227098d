"""Results of peers that keep each under a key of its own, fetched in bulk.

Their own ways to collect many results ask for each one by itself, some repeatedly, which would measure the
submitter. One MGET for some hundred keys is to their advantage.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Sequence

    import redis

__all__ = ["fetch"]

PAGE = 500
LOOK_AGAIN_S = 0.05


def fetch(
    client: redis.Redis, keys: Sequence[str], timeout_s: float, unfinished: bytes | None = None
) -> list[bytes | None]:
    """Wait for the values of all keys and return them. None for each that is absent when the time is over.

    A value that contains `unfinished` is not yet a result.
    """
    give_up_at = time.monotonic() + timeout_s
    found: list[bytes | None] = []
    for start in range(0, len(keys), PAGE):
        page = keys[start : start + PAGE]
        while None in (values := _look(client, page, unfinished)) and time.monotonic() < give_up_at:
            time.sleep(LOOK_AGAIN_S)
        found += values
    return found


def _look(client: redis.Redis, keys: Sequence[str], unfinished: bytes | None) -> list[bytes | None]:
    values = cast("list[bytes | None]", client.mget(keys))
    return [None if unfinished and unfinished in (value or b"") else value for value in values]
