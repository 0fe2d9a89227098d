"""Which versions of the servers a run of the tests uses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support import servers
from support.redis_server import version_of
from support.servers import versions_to_test

from dispatcher.devstack.stack import redis_server

if TYPE_CHECKING:
    from collections.abc import Mapping

THERE = ["redis-6.2", "redis-7.0", "redis-8.2", "valkey-9.1"]


class Options:
    """The part of pytest's configuration that is read."""

    def __init__(self, **given: bool) -> None:
        self._given: Mapping[str, bool] = {"one_server": False, "all_servers": False} | given

    def getoption(self, name: str) -> bool:
        return self._given[name]


@pytest.mark.parametrize(
    ("there", "used"),
    [(THERE, ["redis-6.2", "valkey-9.1"]), (THERE[:2], THERE[:2]), (THERE[:1], THERE[:1]), ([], [])],
    ids=["four", "two", "one", "none"],
)
def test_tests_use_the_oldest_and_the_newest_server_that_there_is(
    there: list[str], used: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, "versions", lambda: there)
    assert versions_to_test(Options()) == used


def test_all_servers_or_the_one_of_the_product_are_used_if_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "versions", lambda: THERE)
    assert versions_to_test(Options(all_servers=True)) == THERE
    assert versions_to_test(Options(one_server=True)) == [version_of(redis_server())]
