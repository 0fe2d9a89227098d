"""What an Executor may state in its health: the version of the contract, and what it can do beyond it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from dispatcher.errors import ExecutorProtocolError, ExecutorServerError

if TYPE_CHECKING:
    from collections.abc import Collection

    from workers.drivers.answers import Answer

__all__ = ["SPOKEN", "capabilities_of", "check_well", "same_major", "says_one_of", "version_of"]

SPOKEN = "1.3"
"""`major.minor`, as in `executor/openapi.yaml`. Versions with different majors are incompatible."""

UNWELL = {"down", "error", "fail", "failed", "failing", "not_ready", "unavailable", "unhealthy"}
"""Statuses of Executors, or of their stores, that cannot do what they are asked for."""

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


def capabilities_of(answer: Answer) -> frozenset[str]:
    """The field `capabilities` in an answer to `GET /v1/health`. None of them if it is absent.

    Raises `ExecutorProtocolError` if it is not a list of names.
    """
    try:
        fields = answer.json()
    except ExecutorProtocolError:
        return frozenset()
    names = fields.get("capabilities") if isinstance(fields, dict) else None
    if names is None:
        return frozenset()
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise answer.protocol_error("breaks the contract (capabilities must be a list of names)")
    return frozenset(names)


def check_well(answer: Answer) -> None:
    """Raises `ExecutorServerError` for a success whose content says that the Executor is not well."""
    try:
        fields = answer.json()
    except ExecutorProtocolError:
        return
    if not isinstance(fields, dict):
        return
    status = fields.get("status")
    unwell = says_one_of(status, UNWELL)
    denied = [name for name in ("healthy", "ready") if fields.get(name) is False]
    if unwell or denied:
        found = f"status {status!r}" if unwell else f"{denied[0]} false"
        raise ExecutorServerError(
            f"{answer.call}: {answer.status}, but the answer says {found}; see the Executor's log",
            answer.status,
            answer.words,
        )


def says_one_of(status: object, words: Collection[str]) -> bool:
    """Whether a status is one of the words, in any case, and with spaces or hyphens for underscores."""
    return isinstance(status, str) and re.sub(r"[ -]", "_", status.lower()) in words


def same_major(version: str, spoken: str) -> bool:
    """Whether both versions have the same major number, so that both sides understand each other."""
    return VERSION.fullmatch(version) is not None and version.partition(".")[0] == spoken.partition(".")[0]
