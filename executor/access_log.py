"""Reads Envoy's access log as it grows, and keeps the file small."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

from executor.observations import Request, parse_line

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from executor.envoy import Envoy

__all__ = ["AccessLog"]

ROTATE_AT_BYTES = 8_000_000

logger = logging.getLogger(__name__)


class AccessLog:
    """What is new in the log since the last look."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._begun = b""

    def new_requests(self) -> Iterator[Request]:
        """The requests that came to a target with a fault, each one once."""
        if not self._path.exists():
            return
        with self._path.open("rb") as log:
            log.seek(self._offset)
            data = log.read()
        self._offset += len(data)
        *lines, self._begun = (self._begun + data).split(b"\n")
        for line in lines:
            try:
                request = parse_line(json.loads(line))
            except (ValueError, KeyError) as exc:
                logger.warning("not an access log line: %s (%r)", exc, line[:200])
                continue
            if request is not None:
                yield request

    async def rotate(self, envoy: Envoy) -> list[Request]:
        """Begin a new file if this one has grown large; the last requests of the old one."""
        if self._offset < ROTATE_AT_BYTES:
            return []
        old = self._path.with_suffix(".old")
        self._path.replace(old)
        await envoy.reopen_logs()
        rest = AccessLog(old)
        rest._offset, rest._begun = self._offset, self._begun
        requests = list(rest.new_requests())
        old.unlink()
        self._offset, self._begun = 0, b""
        return requests
