"""The version of the faults API's contract, which an Executor may state in its health."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from dispatcher.errors import ExecutorProtocolError

if TYPE_CHECKING:
    from workers.drivers.answers import Answer

__all__ = ["SPOKEN", "same_major", "version_of"]

SPOKEN = "1.2"
"""`major.minor`, as in `executor/openapi.yaml`. Versions with different majors are incompatible."""

LONGEST_VERSION = 20
VERSION = re.compile(r"[0-9]+(\.[0-9]+)*")


def version_of(answer: Answer) -> str | None:
    """The field `contract` in an answer to `GET /v1/health`. None if it is absent."""
    try:
        fields = answer.json()
    except ExecutorProtocolError:
        return None
    version = fields.get("contract") if isinstance(fields, dict) else None
    return None if version is None else str(version)[:LONGEST_VERSION]


def same_major(version: str, spoken: str) -> bool:
    """Whether both versions have the same major number, so that both sides understand each other."""
    return VERSION.fullmatch(version) is not None and version.partition(".")[0] == spoken.partition(".")[0]
