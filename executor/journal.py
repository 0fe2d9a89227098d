"""What has changed since the Executor's state was kept last."""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from typing import TYPE_CHECKING

from executor.control_plane import EnvoyError

if TYPE_CHECKING:
    from datetime import datetime

    from executor.faults import Fault, FaultRegistry
    from executor.store import Position, Store, Stored

__all__ = ["Journal", "NotKeptError"]

NOT_KEPT = "its state could not be kept, so requests may be missing in its figures: is the disk full?"


class NotKeptError(EnvoyError):
    """The state cannot be written. For callers it is the same as an Envoy that takes no changes."""


class Journal:
    """Collects changes of faults, and has the store keep them together."""

    def __init__(self, store: Store, faults: FaultRegistry) -> None:
        self._store = store
        self._faults = faults
        self._changed: dict[str, Fault] = {}
        self._gone: list[Fault] = []

    def read(self) -> Stored:
        """What an earlier Executor has left."""
        return self._store.read()

    def note(self, *faults: Fault) -> None:
        """These faults have changed."""
        self._changed.update((fault.apply_id, fault) for fault in faults)

    def forget(self, fault: Fault) -> None:
        """The fault never began. If the store fails now, the next `keep` removes it."""
        self._gone.append(fault)
        with suppress(sqlite3.Error):
            self._store.save(gone=self._gone)
            self._gone.clear()

    def keep(self, position: Position, renewed_at: datetime) -> None:
        """Keep all changes, with the position in the log that they include. Raises `NotKeptError`."""
        self._gone += self._faults.forgotten()
        known = [fault for fault in self._changed.values() if self._faults.find(fault.apply_id) is fault]
        try:
            self._store.save(known, gone=self._gone, position=position, renewed_at=renewed_at)
        except sqlite3.Error as exc:
            self._doubt_figures()
            raise NotKeptError(f"the Executor cannot keep its state: {exc}") from exc
        self._changed.clear()
        self._gone.clear()

    def _doubt_figures(self) -> None:
        """Envoy's log is in the same folder, and is not written then either."""
        for fault in self._faults.unsettled():
            if fault.in_force and not fault.doubt:
                fault.doubt = NOT_KEPT
                self.note(fault)
