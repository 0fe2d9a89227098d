"""On which versions of Redis and Valkey tests run."""

from __future__ import annotations

from typing import Any, Protocol

from support.redis_server import version_of, versions

from dispatcher.devstack.stack import redis_server


class Options(Protocol):
    """Those of this run: pytest's configuration."""

    def getoption(self, name: str) -> Any: ...


def versions_to_test(config: Options) -> list[str]:
    """The oldest and the newest that this machine has, unless an option says otherwise."""
    if config.getoption("one_server"):
        return [version_of(redis_server())]
    there = versions()
    return there if config.getoption("all_servers") else sorted({*there[:1], *there[-1:]})
