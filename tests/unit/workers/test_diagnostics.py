"""What doctor makes of the facts."""

from __future__ import annotations

from typing import Any

import pytest

from workers.commands.diagnostics import (
    Level,
    capabilities,
    clock,
    contract,
    latency,
    overdue,
    redis_server,
    worker_fleet,
)

INFO: dict[str, Any] = {
    "redis_version": "7.0.15",
    "aof_enabled": 1,
    "maxmemory_policy": "noeviction",
    "used_memory": 10_000_000,
    "maxmemory": 0,
    "total_system_memory": 1_000_000_000,
}


def levels(**changes: Any) -> dict[str, Level]:
    return {finding.what: finding.level for finding in redis_server(INFO | changes)}


def test_a_redis_as_it_should_be_is_ok() -> None:
    assert set(levels().values()) == {Level.OK}


@pytest.mark.parametrize(
    ("changes", "what", "level"),
    [
        ({"redis_version": "5.0.14"}, "redis version", Level.ERROR),
        ({"redis_version": "6.2.14"}, "redis version", Level.OK),
        ({"aof_enabled": 0}, "redis persistence", Level.WARNING),
        ({"maxmemory_policy": "allkeys-lru"}, "redis eviction", Level.ERROR),
        ({"maxmemory": 12_000_000}, "redis memory", Level.WARNING),
        ({"maxmemory": 20_000_000}, "redis memory", Level.OK),
        ({"aof_last_write_status": "err"}, "redis persistence", Level.ERROR),
        ({"aof_enabled": 0, "rdb_last_bgsave_status": "err"}, "redis persistence", Level.ERROR),
        ({"evicted_keys": 3}, "redis evictions", Level.ERROR),
        ({"connected_clients": 90, "maxclients": 100}, "redis clients", Level.WARNING),
    ],
)
def test_what_is_wrong_with_a_redis_is_found(changes: dict[str, Any], what: str, level: Level) -> None:
    assert levels(**changes)[what] is level


def test_a_valkey_is_called_by_its_own_version() -> None:
    version = redis_server(INFO | {"redis_version": "7.2.4", "valkey_version": "9.1.2"})[0]
    assert (version.what, version.level, version.message) == ("redis version", Level.OK, "Valkey 9.1.2")


@pytest.mark.parametrize(("ahead_s", "level"), [(0.2, Level.OK), (-5, Level.WARNING), (5, Level.WARNING)])
def test_a_clock_that_is_off_is_found(ahead_s: float, level: Level) -> None:
    assert clock(ahead_s).level is level


def test_the_direction_in_which_a_clock_is_off_is_reported() -> None:
    assert "ahead of" in clock(5).message
    assert "behind" in clock(-5).message


@pytest.mark.parametrize(("ms", "level"), [(0.3, Level.OK), (9, Level.WARNING), (90, Level.ERROR)])
def test_a_slow_redis_is_found(ms: float, level: Level) -> None:
    assert latency(ms).level is level


@pytest.mark.parametrize(
    ("told", "level"),
    [
        (None, Level.OK),
        ("1.0", Level.OK),
        ("1.7", Level.OK),
        ("1", Level.OK),
        ("2.0", Level.WARNING),
        ("10.0", Level.WARNING),
        ("", Level.WARNING),
        ("1.x", Level.WARNING),
    ],
)
def test_another_major_version_of_the_contract_is_found(told: str | None, level: Level) -> None:
    assert contract("default", told, "1.0").level is level


def test_an_executor_of_another_contract_is_named_with_what_to_do() -> None:
    assert str(contract("eu", "2.1", "1.0")) == (
        "warning  contract of eu: version '2.1', but the driver's is 1.0. Bring it and this fleet to the "
        "same major version; dispatcher conformance URL checks it"
    )
    assert contract("eu", None, "1.0").message == (
        "names no contract version; dispatcher conformance URL checks it"
    )


BOTH = {"headers", "grpc_status"}


@pytest.mark.parametrize(
    ("said", "declared", "supports", "level", "message"),
    [
        ({*BOTH, "dead_man"}, None, BOTH, Level.OK, "dead_man, grpc_status, headers"),
        ((), None, BOTH, Level.OK, "none; plans with headers or protocol grpc are refused"),
        ({"headers"}, None, {"headers"}, Level.OK, "headers; plans with protocol grpc are refused"),
        (BOTH, ["headers"], BOTH, Level.OK, "headers; plans with protocol grpc are refused"),
        (BOTH, None, (), Level.OK, "grpc_status, headers; plans with headers or protocol grpc are refused"),
        (
            ["dead_man"],
            ["headers"],
            BOTH,
            Level.WARNING,
            "the settings declare headers, and the Executor does not say so itself",
        ),
    ],
    ids=["all", "none", "one", "fewer in the settings", "an old driver", "more in the settings"],
)
def test_what_an_executor_can_do_is_shown(
    said: list[str], declared: list[str] | None, supports: set[str], level: Level, message: str
) -> None:
    found = capabilities("default", said, declared, supports)
    assert (found.level, found.message) == (level, message)


@pytest.mark.parametrize(("late_s", "level"), [(None, Level.OK), (2.0, Level.OK), (60.0, Level.ERROR)])
def test_plans_that_no_worker_starts_are_found(late_s: float | None, level: Level) -> None:
    assert overdue(late_s, 7).level is level


def test_workers_of_another_version_or_queue_are_found() -> None:
    replies = {
        "a@host": {"version": "1.0", "queues": ["dispatcher"]},
        "b@host": {"version": "0.9", "queues": ["dispatcher"]},
        "c@host": {"version": "1.0", "queues": ["celery"]},
    }
    found = {finding.what: finding.level for finding in worker_fleet(replies, "dispatcher", "1.0")}
    assert found == {"worker a@host": Level.OK, "worker b@host": Level.WARNING, "worker c@host": Level.ERROR}
    [nobody] = worker_fleet({}, "dispatcher", "1.0")
    assert (nobody.level, nobody.fix) == (Level.ERROR, "Start one: dispatcher worker")


def test_a_finding_is_one_line_with_what_to_do() -> None:
    assert str(worker_fleet({}, "q", "1")[0]) == (
        "error    workers: none answers. Start one: dispatcher worker"
    )
