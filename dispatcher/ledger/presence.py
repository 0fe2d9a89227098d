"""Which workers are connected to Redis: by the names of their connections, at no cost while plans run.

A worker that is stopped or hangs keeps its connections. Those of a worker that has ended are gone.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dispatcher.ledger.ledger import Ledger
    from dispatcher.settings.settings import Settings

__all__ = ["connected_workers", "connection_name"]

NOT_IN_NAMES = re.compile(r"[^!-~]")
"""What Redis takes in no name."""

FIELD = re.compile(r"(?:^| )(name|age)=(\S*)")


def connection_name(settings: Settings, worker: str) -> str:
    """The name of the connections of a worker, which Celery knows as `worker`."""
    return NOT_IN_NAMES.sub("?", f"{settings.key_prefix}:worker:{worker}")


def connected_workers(ledger: Ledger, settings: Settings) -> dict[str, float]:
    """For how many seconds each worker of the fleet has been connected, by the name of its connections.

    Raises `LedgerUnavailableError`; `LedgerRefusedError` if Redis does not allow `CLIENT LIST`.
    """
    [listed] = ledger.execute_all([["CLIENT", "LIST"]])
    begins = connection_name(settings, "")
    found: dict[str, float] = {}
    for line in str(listed).splitlines():
        fields = dict(FIELD.findall(line))
        name, age = fields.get("name", ""), fields.get("age", "")
        if name.startswith(begins) and age.isdecimal():
            found[name] = max(found.get(name, 0.0), float(age))
    return found
