"""Reads Envoy's access log as it grows, and keeps the file small."""

from __future__ import annotations

import json
import logging
from collections import deque
from typing import TYPE_CHECKING

from executor.observations import Mark, parse_line
from executor.store import Position

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    from executor.observations import Arrival, End

__all__ = ["AccessLog"]

ROTATE_AT_BYTES = 8_000_000

REMEMBERED_BYTES = 128
"""The end of what was read, by which a file is known again: one that was cut may have grown since."""

REMEMBERED_MARKS = 1_000
"""More than Envoy is asked for within the time in which each must be read."""

logger = logging.getLogger(__name__)


class AccessLog:
    """What is new in the log since the last read."""

    def __init__(self, path: Path) -> None:
        self.read_to_mark = 0
        """The last mark that was read."""

        self.cut = False
        """Whether lines are missing or damaged: something has cut or removed the file, for example, or the
        disk was full. The reader resets it."""

        self._path = path
        self._old = path.with_suffix(".old")
        self._file = path
        self._offset = 0
        self._begun = b""
        self._end = b""
        self._was_there = False
        self._marks: deque[int] = deque(maxlen=REMEMBERED_MARKS)

    def has(self, mark: int) -> bool:
        """Whether this mark was read."""
        return mark in self._marks

    @property
    def position(self) -> Position:
        """How far it was read: the end of the last whole line."""
        inode = self._file.stat().st_ino if self._file.exists() else 0
        return Position(inode, self._offset - len(self._begun))

    def restore(self, position: Position) -> None:
        """Go on where an Executor before has stopped. If that file has gone, begin with the newest."""
        for file in (self._old, self._path):
            if file.exists() and file.stat().st_ino == position.inode:
                self._file, self._offset = file, position.offset
                return
        self.cut = position.offset > 0

    def news(self) -> Iterator[Arrival | End]:
        """Arrivals and ends of requests to targets with a fault, each one once, in their order."""
        there = self._file.exists()
        self._was_there |= there
        size = self._file.stat().st_size if there else 0
        if size < self._offset:
            self._begin_again()
        if not size:
            return
        data = self._new_bytes()
        self._offset += len(data)
        self._end = (self._end + data)[-REMEMBERED_BYTES:]
        *lines, self._begun = (self._begun + data).split(b"\n")
        for line in lines:
            try:
                found = parse_line(json.loads(line))
            except (ValueError, KeyError, TypeError) as exc:
                logger.warning("not an access log line: %s (%r)", exc, line[:200])
                self.cut = True  # it may have been a request
                continue
            if isinstance(found, Mark):
                self.read_to_mark = max(self.read_to_mark, found.number)
                self._marks.append(found.number)
            elif found is not None:
                yield found

    def _new_bytes(self) -> bytes:
        with self._file.open("rb") as log:
            log.seek(self._offset - len(self._end))
            data = log.read()
            if data.startswith(self._end):
                return data[len(self._end) :]
            self._begin_again()
            log.seek(0)
            return log.read()

    def _begin_again(self) -> None:
        """Something has cut the file, or has put another one in its place."""
        self._offset, self._begun, self._end, self.cut = 0, b"", b"", True

    @property
    def missing(self) -> bool:
        """Whether Envoy writes to a file that was removed."""
        return self._was_there and self._file == self._path and not self._path.exists()

    async def rotate(
        self, mark: Callable[[], Awaitable[object]], reopen: Callable[[], Awaitable[object]]
    ) -> list[Arrival | End]:
        """Begin a new file if this one has grown large; the last news of the old one.

        `mark` and `reopen` ask Envoy for a mark and for a new file, which it begins with its next line. Until
        then the old one is read. Raises `EnvoyError`, and the next call goes on.
        """
        if self._file == self._path and self._offset >= ROTATE_AT_BYTES:
            self._file = self._path.replace(self._old)
            await reopen()
        if self._file == self._path:
            return []
        await mark()
        if not self._path.exists():
            await reopen()  # the earlier request may have failed
            return []
        await mark()  # the new file is there, and has this one
        rest = list(self.news())
        self._old.unlink()
        self._file, self._offset, self._begun, self._end = self._path, 0, b"", b""
        return rest
