"""What an Executor keeps on disk: its faults, their figures, and how far it has read Envoy's log."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from executor.contract import FaultApply
from executor.faults import Fault
from executor.observations import Tally

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["Position", "Store", "Stored"]

SCHEMA = """
CREATE TABLE IF NOT EXISTS faults (apply_id TEXT PRIMARY KEY, fault TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS executor (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""
VERSION = 1
"""Of what is stored. Raised if a version before could not read it."""

WHAT_TO_DO = (
    "its faults end by themselves within seconds. To begin without it, move it away, with the files that "
    "have its name and -wal or -shm at the end"
)

MOMENTS = ("start_time", "not_after", "end_time")
PLAIN = ("key", "apply_id", "in_force", "stopping", "arrivals_known", "error", "doubt")


@dataclass(frozen=True, slots=True)
class Position:
    """How far the access log was read: the file, and the bytes of it."""

    inode: int = 0
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Stored:
    """What an Executor before has left."""

    faults: list[Fault]
    position: Position
    renewed_at: datetime | None
    """When Envoy was last known to have the faults on."""


class Store:
    """One SQLite file (write-ahead log). Each method is one transaction."""

    def __init__(self, file: Path) -> None:
        """Raises `ValueError` with the file's name if it is damaged, out of reach, or of another version."""
        self._file = file
        if file.exists() and not file.stat().st_size:
            raise self._damaged("it is empty: what it held is lost, or was never written")
        try:
            self._db = sqlite3.connect(file, isolation_level=None)
        except sqlite3.OperationalError as exc:
            raise self._unusable(exc) from exc
        try:
            self._begin()
        except BaseException:
            self._db.close()
            raise

    def _begin(self) -> None:
        try:
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.executescript(SCHEMA)
            [(found,), *_] = self._db.execute("PRAGMA quick_check(1)").fetchall()
            if found != "ok":
                raise self._damaged(" ".join(found.split()))
            version = self._value("version") or VERSION
            if version != VERSION:
                raise ValueError(f"{self._file}: it has version {version}, and this Executor reads {VERSION}")
            self._put("version", VERSION)
        except sqlite3.OperationalError as exc:
            raise self._unusable(exc) from exc
        except sqlite3.DatabaseError as exc:
            raise self._damaged(str(exc)) from exc

    def read(self) -> Stored:
        """All of it. Raises `ValueError` with the file's name, and closes it, if a part cannot be read."""
        try:
            rows = self._db.execute("SELECT fault FROM faults").fetchall()
            faults = sorted((_fault_of(json.loads(row[0])) for row in rows), key=lambda each: each.start_time)
            renewed = self._value("renewed_at")
            position = Position(*(self._value("position") or ()))
            return Stored(faults, position, None if renewed is None else datetime.fromisoformat(renewed))
        except sqlite3.OperationalError as exc:
            self._db.close()
            raise self._unusable(exc) from exc
        except (sqlite3.DatabaseError, ValueError, TypeError, LookupError, AttributeError) as exc:
            self._db.close()
            raise self._damaged(f"{type(exc).__name__} in a record") from exc

    def save(
        self,
        faults: Iterable[Fault] = (),
        *,
        gone: Iterable[Fault] = (),
        position: Position | None = None,
        renewed_at: datetime | None = None,
    ) -> None:
        """Write the faults as they are now, and what else is given. `gone` are forgotten."""
        rows = [(fault.apply_id, json.dumps(_record_of(fault))) for fault in faults]
        self._db.execute("BEGIN IMMEDIATE")
        try:
            self._db.executemany("INSERT OR REPLACE INTO faults VALUES (?, ?)", rows)
            self._db.executemany("DELETE FROM faults WHERE apply_id = ?", [(each.apply_id,) for each in gone])
            if position is not None:
                self._put("position", [position.inode, position.offset])
            if renewed_at is not None:
                self._put("renewed_at", renewed_at.isoformat())
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def _damaged(self, why: str) -> ValueError:
        return ValueError(f"{self._file} is damaged ({why}): {WHAT_TO_DO}")

    def _unusable(self, exc: sqlite3.OperationalError) -> ValueError:
        return ValueError(
            f"{self._file} cannot be used ({exc}). Check its owner and the disk; it is not damaged"
        )

    def _value(self, name: str) -> Any:
        row = self._db.execute("SELECT value FROM executor WHERE name = ?", [name]).fetchone()
        return None if row is None else json.loads(row[0])

    def _put(self, name: str, value: object) -> None:
        self._db.execute("INSERT OR REPLACE INTO executor VALUES (?, ?)", [name, json.dumps(value)])


def _record_of(fault: Fault) -> dict[str, Any]:
    moments = {name: getattr(fault, name) for name in MOMENTS}
    return {
        "request": fault.request.model_dump(mode="json"),
        **{name: getattr(fault, name) for name in PLAIN},
        **{name: None if moment is None else moment.isoformat() for name, moment in moments.items()},
        "tally": fault.tally.to_json(),
    }


def _fault_of(record: dict[str, Any]) -> Fault:
    fields: dict[str, Any] = {name: record[name] for name in PLAIN}
    for name in MOMENTS:
        fields[name] = None if record[name] is None else datetime.fromisoformat(record[name])
    request, tally = FaultApply.model_validate(record["request"]), Tally.from_json(record["tally"])
    return Fault(request=request, tally=tally, **fields)
