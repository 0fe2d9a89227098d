"""Clients outlive trouble with Redis, do not spin meanwhile, and end within their time."""

from __future__ import annotations

import asyncio
import json
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import SecretStr
from support.command_line import dispatcher as run_dispatcher
from support.eventually import eventually
from support.forwarder import Forwarder
from support.plans import abort_plan as plan
from support.redis_server import RedisServer, programs
from support.steps import finished

from dispatcher import (
    Dispatcher,
    LedgerRefusedError,
    LedgerUnavailableError,
    RecordUnreadableError,
    ResultTimeoutError,
    Settings,
)
from dispatcher.ledger.connection import worker_client
from dispatcher.ledger.leases import Lease, Leases, Named, Settlement

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from dispatcher import PlanHandle

    Wait = Callable[[Dispatcher, PlanHandle, float], object]


@pytest.fixture
def server(own_redis: RedisServer) -> RedisServer:
    return own_redis


@pytest.fixture
def dispatcher(server: RedisServer) -> Iterator[Dispatcher]:
    with Dispatcher(Settings(redis_url=SecretStr(server.url))) as dispatcher:
        yield dispatcher


WAITS: dict[str, Wait] = {
    "result": lambda _, handle, timeout: handle.result(timeout),
    "result_async": lambda _, handle, timeout: asyncio.run(handle.result_async(timeout)),
    "health": lambda dispatcher, _, timeout: dispatcher.health(timeout_sec=timeout),
}


@pytest.mark.every_server
@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)
def test_a_wait_asks_a_few_times_a_second_while_redis_refuses_writes(
    wait: Wait, dispatcher: Dispatcher, server: RedisServer
) -> None:
    handle = dispatcher.submit(plan())
    server.client.config_set("min-replicas-to-write", 1)
    before = commands(server)
    with pytest.raises(ResultTimeoutError):
        wait(dispatcher, handle, 1)
    assert commands(server) - before < 30


@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)
def test_a_wait_ends_in_time_if_redis_hangs(wait: Wait, dispatcher: Dispatcher, server: RedisServer) -> None:
    handle = dispatcher.submit(plan())
    server.hang()
    begun = time.monotonic()
    with pytest.raises(LedgerUnavailableError, match="did not answer"):
        wait(dispatcher, handle, 1)
    assert time.monotonic() - begun < 3


@pytest.mark.every_server
@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)
def test_a_wait_with_a_wrong_password_ends_at_once(
    wait: Wait, dispatcher: Dispatcher, server: RedisServer
) -> None:
    handle = dispatcher.submit(plan())
    server.client.config_set("requirepass", "another")
    server.client.client_kill_filter(skipme=True, _type="normal")
    begun = time.monotonic()
    with pytest.raises(LedgerRefusedError, match=r"NOAUTH|Authentication"):
        wait(dispatcher, handle, 60)
    assert time.monotonic() - begun < 10


@pytest.mark.every_server
def test_a_wait_goes_on_once_redis_takes_writes_again(dispatcher: Dispatcher, server: RedisServer) -> None:
    handle = dispatcher.submit(plan())
    server.client.config_set("min-replicas-to-write", 1)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(handle.result, 20)
        eventually(lambda: errors(server) > 1)
        server.client.config_set("min-replicas-to-write", 0)
        server.client.hset(f"{{dispatcher}}:plan:{handle.id}", "state", "failed")
        assert type(waiting.exception(timeout=15)).__name__ == "PlanUnknownError"  # it has no result


@pytest.mark.every_server
def test_the_error_says_what_redis_answered(dispatcher: Dispatcher, server: RedisServer) -> None:
    server.client.config_set("min-replicas-to-write", 1)
    with pytest.raises(LedgerUnavailableError, match="refused a command: NOREPLICAS Not enough"):
        dispatcher.submit(plan())
    server.client.config_set("min-replicas-to-write", 0)
    server.client.config_set("maxmemory", 1)
    with pytest.raises(LedgerUnavailableError, match="refused a command: OOM command not allowed"):
        dispatcher.submit(plan())


@pytest.mark.every_server
def test_clients_follow_a_primary_that_moves_behind_its_address(
    own_redis: RedisServer, redis_version: str, tmp_path: Path
) -> None:
    old = own_redis
    old.client.config_set("repl-diskless-sync-delay", 0)
    with (
        RedisServer(tmp_path, program=programs()[redis_version]) as new,
        closing(Forwarder(old.port)) as forwarder,
    ):
        new.client.replicaof("127.0.0.1", old.port)
        eventually(lambda: new.client.info("replication")["master_link_status"] == "up")
        with Dispatcher(Settings(redis_url=SecretStr(forwarder.url))) as dispatcher:
            before = dispatcher.submit(plan(api="/before"))
            old.client.set("written", "last")  # `WAIT` is about what its own connection wrote, and all before
            eventually(lambda: old.client.wait(1, 1000))
            new.client.replicaof("NO", "ONE")
            old.client.replicaof("127.0.0.1", new.port)
            forwarder.target = new.port
            after = dispatcher.submit(plan(api="/after"))  # a script
            dispatcher.halt("a command")
            assert dispatcher.halted() == "a command"
            assert {status.id for status in dispatcher.in_flight()} == {before.id, after.id}
            assert new.client.exists(f"{{dispatcher}}:plan:{after.id}")


def test_many_threads_wait_over_one_dispatcher(dispatcher: Dispatcher) -> None:
    handle = dispatcher.submit(plan())
    with ThreadPoolExecutor(150) as threads:
        waits = [threads.submit(handle.result, 2) for _ in range(150)]
    assert {type(wait.exception()) for wait in waits} == {ResultTimeoutError}


def commands(server: RedisServer) -> int:
    return int(server.client.info("stats")["total_commands_processed"])


def errors(server: RedisServer) -> int:
    return int(server.client.info("stats")["total_error_replies"])


@pytest.mark.every_server
def test_cancel_and_halt_work_on_a_redis_whose_memory_is_full(
    dispatcher: Dispatcher, server: RedisServer
) -> None:
    one, other = dispatcher.submit(plan(api="/one")), dispatcher.submit(plan(api="/other"))
    server.client.config_set("maxmemory", 1)
    assert one.cancel("first " * 1000)
    assert dispatcher.halt("all out") == 2
    assert dispatcher.halted() == "all out"
    reasons = [server.client.hget(f"{{dispatcher}}:plan:{each.id}", "cancelled") for each in (one, other)]
    assert [reason and reason[:10] for reason in reasons] == ["first firs", "halted: al"]
    assert len(reasons[0] or "") == 1000
    assert dispatcher.resume()
    with pytest.raises(LedgerUnavailableError, match="OOM command not allowed"):
        dispatcher.submit(plan(api="/new"))


TROUBLES = {
    "full": (["CONFIG", "SET", "maxmemory", "1"], "OOM command not allowed"),
    "a replica": (["REPLICAOF", "127.0.0.1", "1"], "READONLY You can't write against a read only replica"),
    "alone": (["CONFIG", "SET", "min-replicas-to-write", "1"], "NOREPLICAS Not enough good replicas"),
}


def doctor(server: RedisServer, executor_port: int) -> subprocess.CompletedProcess[str]:
    """`dispatcher doctor --json` without a worker. The Executor is down."""
    executor = f"http://127.0.0.1:{executor_port}"
    settings = {"DISPATCHER_REDIS_URL": server.url, "DISPATCHER_EXECUTORS__DEFAULT__BASE_URL": executor}
    return run_dispatcher("doctor", "--json", **settings)


@pytest.mark.every_server
@pytest.mark.parametrize(("command", "reply"), TROUBLES.values(), ids=TROUBLES)
def test_the_doctor_says_why_redis_takes_no_writes(
    command: list[str], reply: str, server: RedisServer, free_tcp_port: int
) -> None:
    server.client.execute_command(*command)  # type: ignore[no-untyped-call]
    ran = doctor(server, free_tcp_port)
    assert (ran.returncode, ran.stderr) == (1, "")
    findings = {each["what"]: each for each in map(json.loads, ran.stdout.splitlines())}
    for what in ("redis writes", "workers"):
        assert findings[what]["level"] == "error"
        assert reply in str(findings[what])


def test_a_redis_user_without_the_right_to_info_is_a_warning_and_the_doctor_looks_at_the_rest(
    server: RedisServer, free_tcp_port: int
) -> None:
    server.client.execute_command("ACL", "SETUSER", "default", "-info")  # type: ignore[no-untyped-call]
    ran = doctor(server, free_tcp_port)
    levels = {each["what"]: each["level"] for each in map(json.loads, ran.stdout.splitlines())}
    assert (levels["redis server"], levels["clock"]) == ("warning", "ok")
    assert "redis latency" in levels


@pytest.mark.every_server
def test_a_redis_user_without_rights_to_channels_keeps_no_plan_from_ending(server: RedisServer) -> None:
    user = ["mute", "on", ">pa55", "~*", "resetchannels", "+@all"]
    server.client.execute_command("ACL", "SETUSER", *user)  # type: ignore[no-untyped-call]
    settings = Settings(redis_url=SecretStr(server.url.replace("redis://", "redis://mute:pa55@")))
    with Dispatcher(settings) as dispatcher, closing(worker_client(settings)) as client:
        leases, handle = Leases(client, settings), dispatcher.submit(plan())
        [lease] = leases.fetch([Named(handle.id, 0)], 0).named
        assert isinstance(lease, Lease)
        finished(leases, lease)
        assert handle.status().state.final


SPOILT = {
    "another version": {"order": json.dumps({"version": 99, "plan": {"wave": 1}})},
    "no JSON": {"order": "x"},
    "another state": {"state": "frozen"},
    "no number": {"submitted_ms": "soon"},
    "bytes that are not text": {"order": b"\xff\xfe"},
    "a state of such bytes": {"state": b"\xff\xfe"},
    "an unknown error": {"failure": '["NoSuchError", "x"]'},
}


@pytest.mark.parametrize("spoilt", SPOILT.values(), ids=SPOILT)
def test_an_unreadable_record_is_set_aside_and_named(
    spoilt: dict[Any, Any], dispatcher: Dispatcher, server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    handles = [dispatcher.submit(plan(api=f"/{number}"), plan_id=f"p{number}") for number in range(3)]
    server.client.hset("{dispatcher}:plan:p1", mapping=spoilt | {"apply_id": "a1"})
    for _ in range(2):
        assert {status.id for status in dispatcher.in_flight()} == {"p0", "p2"}
    assert dispatcher.active() == []
    [warning] = caplog.messages
    assert warning.startswith("plan p1 (target default:PaymentService:/1, apply id a1) cannot be read: ")
    [error] = dispatcher.unreadable()
    assert (error.plan_id, error.message) == ("p1", warning)
    with pytest.raises(RecordUnreadableError, match="plan p1"):
        handles[1].status()
    assert dispatcher.halt("all out") == 3
    assert server.client.hget("{dispatcher}:plan:p1", "cancelled") == "halted: all out"


@pytest.mark.parametrize("field", ["order", "state"])
def test_bytes_that_are_not_text_spoil_neither_a_workers_batch_nor_a_wait(
    field: str, dispatcher: Dispatcher, server: RedisServer
) -> None:
    handles = [dispatcher.submit(plan(api=f"/{number}"), plan_id=f"p{number}") for number in range(2)]
    server.client.hset("{dispatcher}:plan:p0", field, b"\xff\xfe")
    server.client.zadd("{dispatcher}:history", {b"\xff\xfe": 1})
    settings = Settings(redis_url=SecretStr(server.url))
    with closing(worker_client(settings)) as client:
        leases = Leases(client, settings)
        fetched = leases.fetch([Named("p0", 0), Named("p1", 0)], 0)
        assert [each.plan_id for each in fetched.unreadable] == ["p0"]
        lease = fetched.named[1]
        assert isinstance(lease, Lease)
        leases.settle([Settlement("p0", fetched.unreadable[0].token, "aside", [fetched.unreadable[0].why])])
        finished(leases, lease)
    assert asyncio.run(handles[1].status_async()).state.final
    with pytest.raises(RecordUnreadableError, match="plan p0"):
        asyncio.run(handles[0].status_async())
    assert [status.id for status in dispatcher.history()] == ["p1"]


def test_a_key_of_another_type_is_an_unreadable_record(dispatcher: Dispatcher, server: RedisServer) -> None:
    dispatcher.submit(plan(), plan_id="p1")
    server.client.zadd("{dispatcher}:due", {"p2": 0})
    server.client.set("{dispatcher}:plan:p2", "a string")
    assert [status.id for status in dispatcher.in_flight()] == ["p1"]
    assert [error.plan_id for error in dispatcher.unreadable()] == ["p2"]
