"""Callers that wait for their faults to begin or to end."""

from __future__ import annotations

import asyncio

__all__ = ["Waiting"]


class Waiting:
    """At most one future for each fault, by its `apply_id`. All of its callers wait for the same one."""

    def __init__(self) -> None:
        self._futures: dict[str, asyncio.Future[None]] = {}

    def __contains__(self, apply_id: str) -> bool:
        return apply_id in self._futures

    def of(self, apply_id: str) -> asyncio.Future[None]:
        """The fault's future. Shield it: a caller that gives up must not cancel it for the others."""
        if apply_id not in self._futures:
            self._futures[apply_id] = asyncio.get_running_loop().create_future()
        return self._futures[apply_id]

    def resolve(self, apply_id: str, error: Exception | None = None) -> None:
        """It has happened, or it will not, and `error` says why."""
        waiting = self._futures.pop(apply_id, None)
        if waiting is None or waiting.done():
            return
        if error is None:
            waiting.set_result(None)
        else:
            waiting.set_exception(error)
            waiting.exception()  # it is not missed if there is no caller any more
