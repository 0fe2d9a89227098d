"""Whose requests the faults of an Executor hit, beyond one path of one service (`Reach`).

Plans of different targets may hit the same requests: a path may be a template, and two Executors of the
settings may be one server. The script `fetch` marks such plans as overlapped. They do not wait for others.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dispatcher.settings.settings import Settings

__all__ = ["Reach", "reaches_of"]


@dataclass(frozen=True, slots=True)
class Reach:
    """How far a plan's fault reaches on this Executor."""

    paths: Literal["exact", "template", "prefix"] = "exact"
    """Whether a plan's path is one path, or `{name}` is any segment, or that and every path below."""

    any_service: bool = False
    """Whether requests to all services are hit, and not only those to the service of the plan."""

    namespace: str | None = None
    """The only namespace whose requests are hit. None: all."""

    method: str | None = None
    """The only HTTP method of the requests that are hit. None: all."""

    def meets(self, other: Reach) -> bool:
        """Whether the same request may be hit by both."""
        pairs = ((self.namespace, other.namespace), (self.method, other.method))
        return all(None in pair or pair[0] == pair[1] for pair in pairs)


def reaches_of(settings: Settings, reaches: Mapping[str, Reach]) -> str:
    """What the script `fetch` must know: JSON, or an empty text if each target has its requests for itself.

    {"<executor>": {"group": "<server>", "by_service": whether no fault of the server hits another service,
    "paths": "...", "others": {"<executor>": whether of any service}}}
    """
    servers = {name: str(settings.executors[name].base_url).rstrip("/").lower() for name in reaches}
    wide = {servers[name] for name, reach in reaches.items() if reach.any_service}
    table: dict[str, Any] = {}
    for name, own in reaches.items():
        others = {
            other: own.any_service or theirs.any_service
            for other, theirs in reaches.items()
            if servers[other] == servers[name] and own.meets(theirs)
        }
        if len(others) > 1 or own.paths != "exact" or own.any_service:
            server = servers[name]
            by_service = server not in wide
            table[name] = {"group": server, "by_service": by_service, "paths": own.paths, "others": others}
    return json.dumps(table) if table else ""
