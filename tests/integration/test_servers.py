"""Which versions of Redis and Valkey the tests run on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.redis_server import SOURCES, programs, versions

if TYPE_CHECKING:
    from support.redis_server import RedisServers


@pytest.mark.parametrize("version", SOURCES)
def test_the_machine_has_each_version_that_should_be_tested(version: str) -> None:
    if version not in programs():
        pytest.skip(f"no test runs on {version}, which this machine does not have: {SOURCES[version]}")


@pytest.mark.parametrize("version", versions())
def test_a_server_has_the_version_that_is_in_the_test_ids(version: str, redis_servers: RedisServers) -> None:
    with redis_servers.emptied(version) as server:
        info = server.client.info("server")
    name, _, number = version.partition("-")
    assert str(info[f"{name}_version"]).startswith(f"{number}.")
    assert name == info.get("server_name", "redis")


def test_the_page_on_compatibility_names_the_oldest_and_the_newest_version_that_should_be_tested() -> None:
    page = (Path(__file__).parents[2] / "docs" / "compatibility.md").read_text("utf-8")
    *redis, valkey = sorted(SOURCES)
    oldest, newest = (version.removeprefix("redis-") for version in (redis[0], redis[-1]))
    assert f"| Redis | {oldest} to {newest} |" in page
    assert f"| Valkey | {valkey.removeprefix('valkey-')} |" in page
