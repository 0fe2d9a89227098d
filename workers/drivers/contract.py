"""The version of the faults API's contract, which an Executor may tell with its health."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from dispatcher.errors import ExecutorProtocolError

if TYPE_CHECKING:
    from workers.drivers.answers import Answer

__all__ = ["SPOKEN", "same_major", "version_of"]

SPOKEN = "1.0"
"""`major.minor`, as in `executor/openapi.yaml`. Another major version is another language."""

LONGEST_VERSION = 20
VERSION = re.compile(r"\d+(\.\d+)*")


def version_of(answer: Answer) -> str | None:
    """What an answer of `GET /v1/health` says in `contract`. None where it says nothing."""
    try:
        fields = answer.json()
    except ExecutorProtocolError:
        return None
    told = fields.get("contract") if isinstance(fields, dict) else None
    return None if told is None else str(told)[:LONGEST_VERSION]


def same_major(told: str, spoken: str) -> bool:
    """Whether who speaks the one version understands the other."""
    return VERSION.fullmatch(told) is not None and told.partition(".")[0] == spoken.partition(".")[0]
