"""What Redis's errors mean: what it answered, whether that passes, and what a person can do."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import pytest
import redis
import redis.asyncio
from pydantic import SecretStr
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import EqualJitterBackoff, NoBackoff
from redis.exceptions import BusyLoadingError, MasterDownError, MovedError, NoPermissionError
from redis.retry import Retry

from dispatcher import LedgerRefusedError, LedgerUnavailableError, Settings
from dispatcher.ledger import connection
from dispatcher.ledger.connection import (
    RedisErrors,
    advice_on,
    async_client,
    impatient_client,
    impatient_timeout_s,
    is_other_server,
    is_trouble,
    patient_client,
    replies_of,
    reply_of,
    subscribing_client,
    worker_client,
)
from dispatcher.settings.settings import WorkerSettings

if TYPE_CHECKING:
    from collections.abc import Callable

SHA = "f" * 40

REPLIES = {
    redis.ReadOnlyError("You can't write against a read only replica.", status_code="READONLY"): (
        "READONLY You can't write against a read only replica"
    ),
    redis.ResponseError("NOREPLICAS Not enough good replicas to write."): (
        "NOREPLICAS Not enough good replicas to write"
    ),
    redis.exceptions.OutOfMemoryError(
        "Command # 1 (LLEN x) of pipeline caused error: command not allowed when used memory > 'maxmemory'",
        status_code="OOM",
    ): "OOM command not allowed when used memory > 'maxmemory'",
    redis.ResponseError("MISCONF No space is left on XXX."): "MISCONF No space is left on XXX",
    redis.ResponseError("MISCONF Redis is configured to save RDB snapshots"): (
        "MISCONF Redis is configured to save RDB snapshots"
    ),
    redis.ResponseError(
        f"Error running script (call to f_{SHA}): @user_script:27: @user_script: 27: "
        "-OOM command not allowed when used memory > 'maxmemory'."
    ): "OOM command not allowed when used memory > 'maxmemory'",
    redis.exceptions.OutOfMemoryError(
        f"command not allowed when used memory > 'maxmemory'. script: {SHA}, on @user_script:27.",
        status_code="OOM",
    ): "OOM command not allowed when used memory > 'maxmemory'",
    redis.ResponseError("UNBLOCKED force unblock from blocking operation, instance state changed"): (
        "UNBLOCKED force unblock from blocking operation, instance state changed"
    ),
    BusyLoadingError("Redis is loading the dataset in memory", status_code="LOADING"): (
        "LOADING Redis is loading the dataset in memory"
    ),
    MasterDownError("Link with MASTER is down", status_code="MASTERDOWN"): (
        "MASTERDOWN Link with MASTER is down"
    ),
    MovedError("3999 127.0.0.1:6381", status_code="MOVED"): "MOVED 3999 127.0.0.1:6381",
    redis.ConnectionError("max number of clients reached", status_code="ERR"): (
        "ERR max number of clients reached"
    ),
}


@pytest.mark.parametrize(("error", "reply"), REPLIES.items(), ids=lambda each: str(each)[:20])
def test_a_reply_that_passes_is_repeated_to_the_caller_and_not_called_silence(
    error: redis.RedisError, reply: str
) -> None:
    told = RedisErrors("redis://here").translate(error)
    assert is_trouble(error)
    assert reply_of(error) == reply
    assert type(told) is LedgerUnavailableError
    assert f"Redis at redis://here refused a command: {reply}" in told.message
    assert "did not answer" not in told.message


@pytest.mark.parametrize(
    "error",
    [
        redis.AuthenticationError("invalid username-password pair", status_code="WRONGPASS"),
        NoPermissionError("this user has no permissions to run it", status_code="NOPERM"),
        redis.ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value"),
        redis.ResponseError(f"Error running script (call to f_{SHA}): user_script:3: attempt to index nil"),
    ],
    ids=lambda error: str(error)[:20],
)
def test_what_comes_back_however_often_it_is_asked_is_refused(error: redis.RedisError) -> None:
    told = RedisErrors("redis://here").translate(error)
    assert not is_trouble(error)
    assert isinstance(told, LedgerRefusedError)
    assert not told.retry_safe


@pytest.mark.parametrize(
    "error", [redis.ConnectionError("Connection refused."), redis.TimeoutError("Timeout reading from x")]
)
def test_silence_is_called_silence(error: redis.RedisError) -> None:
    told = RedisErrors("redis://here").translate(error)
    assert is_trouble(error)
    assert type(told) is LedgerUnavailableError
    assert told.message.startswith("Redis at redis://here did not answer: ")
    assert told.message.endswith("Is it running, and is redis_url right?")


def test_advice_is_for_the_reply_and_ends_the_message() -> None:
    errors = RedisErrors("redis://here")
    full = errors.translate(redis.ResponseError("OOM command not allowed."))
    assert full.message == (
        "Redis at redis://here refused a command: OOM command not allowed. "
        "Its memory is full: raise maxmemory, or keep results for a shorter time (result_expires_sec)"
    )
    gone = errors.translate(redis.ConnectionError("Connection refused."))
    assert gone.message == (
        "Redis at redis://here did not answer: Connection refused. Is it running, and is redis_url right?"
    )
    away = errors.translate(redis.ConnectionError("No route to XXX."))
    assert "did not answer: No route to XXX. Is it running" in away.message
    assert advice_on(redis.AuthenticationError("x")) == "Does redis_url have the right user and password?"
    assert advice_on(NoPermissionError("x")) == "Give the user in redis_url the permission"
    assert advice_on(redis.ResponseError("ODD x")) == (
        "Another program may use the same key_prefix; otherwise report the defect"
    )


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (redis.ConnectionError("max number of clients reached", status_code="ERR"), "raise maxclients"),
        (
            redis.ConnectionError("max number of clients + cluster connections reached", status_code="ERR"),
            "raise maxclients",
        ),
        (redis.ConnectionError("something else is wrong", status_code="ERR"), "Its log may say why"),
        (redis.ResponseError("DENIED Redis is running in protected mode"), "set a password"),
        (redis.ResponseError("ERR DB index is out of range"), "name a database that it has"),
        (redis.ResponseError("ERR unknown command 'BLMOVE'"), "older than Redis 6.2"),
    ],
    ids=lambda each: str(each)[:30],
)
def test_advice_on_a_refusal_never_asks_if_redis_runs(error: redis.RedisError, advice: str) -> None:
    assert advice in RedisErrors("redis://here").translate(error).message
    assert "Is it running" not in advice_on(error)


def test_only_a_reply_names_another_server() -> None:
    assert is_other_server(redis.ResponseError("UNBLOCKED force unblock"))
    assert not is_other_server(redis.ResponseError("OOM x"))
    assert not is_other_server("UNBLOCKED was stored like this")
    assert not is_trouble(redis.AuthenticationError("x"))
    assert not is_trouble(redis.RedisError("x"))


def test_the_first_error_among_replies_is_raised() -> None:
    assert replies_of([1, None, "x"]) == [1, None, "x"]
    with pytest.raises(redis.ResponseError, match="first"):
        replies_of([1, redis.ResponseError("first"), redis.ResponseError("second")])


def test_a_block_translates_errors_of_redis_and_lets_others_through() -> None:
    errors = RedisErrors("redis://here")
    cause = redis.TimeoutError("slow")
    with pytest.raises(LedgerUnavailableError) as caught, errors:
        raise cause
    assert caught.value.__cause__ is cause
    with pytest.raises(ZeroDivisionError), errors:
        raise ZeroDivisionError
    with pytest.raises(LedgerUnavailableError) as forked, errors:
        raise redis.ChildDeadlockedError
    assert forked.value.message == (
        "Redis at redis://here cannot be asked from this process: it was forked while a connection was made"
    )


SETTINGS = Settings(
    redis_url=SecretStr("redis://:pw@127.0.0.1:7777/3"),
    redis_timeout_sec=9.0,
    worker=WorkerSettings(lease_sec=6.0),
)


BROKEN = (redis.ConnectionError,)
"""What is tried again: a reply that is late has taken its time."""


@pytest.mark.parametrize(
    ("client_for", "timeout_s", "retry"),
    [
        (patient_client, 9.0, Retry(EqualJitterBackoff(cap=0.5, base=0.1), 3, BROKEN)),
        (impatient_client, 0.5, Retry(NoBackoff(), 1, BROKEN)),
        (worker_client, 2.0, Retry(NoBackoff(), 0)),
        (async_client, 9.0, AsyncRetry(EqualJitterBackoff(cap=0.5, base=0.1), 3, BROKEN)),
        (subscribing_client, 9.0, AsyncRetry(NoBackoff(), 0, ())),
    ],
    ids=["patient", "impatient", "of a worker", "of asyncio", "for subscriptions"],
)
def test_each_client_gives_up_in_its_own_time(
    client_for: Callable[[Settings], redis.Redis | redis.asyncio.Redis],
    timeout_s: float,
    retry: Retry | AsyncRetry,
) -> None:
    client = client_for(SETTINGS)
    options = client.get_connection_kwargs()
    assert (options["host"], options["port"], options["db"], options["password"]) == (
        "127.0.0.1",
        7777,
        3,
        "pw",
    )
    assert (options["socket_timeout"], options["socket_connect_timeout"]) == (timeout_s, timeout_s)
    assert options["decode_responses"] is True
    assert options["retry"] == retry
    assert options["retry_on_error"] == [redis.ReadOnlyError, MasterDownError]
    assert "maint_notifications_config" not in options  # it would cost a call for each connection
    assert client.connection_pool.max_connections == 10_000


def test_a_short_timeout_is_the_shortest_of_all() -> None:
    hasty = SETTINGS.model_copy(update={"redis_timeout_sec": 0.4})
    assert impatient_timeout_s(hasty) == 0.2
    assert impatient_timeout_s(SETTINGS) == 0.5
    assert worker_client(hasty).get_connection_kwargs()["socket_timeout"] == 0.4


def test_only_a_connection_of_a_worker_is_named() -> None:
    for client in (patient_client(SETTINGS), worker_client(SETTINGS)):
        assert "redis_connect_func" not in client.get_connection_kwargs()
    named = worker_client(SETTINGS, "w1").get_connection_kwargs()["redis_connect_func"]
    sent: list[tuple[str, ...]] = []

    class Connection:
        def on_connect(self) -> None:
            sent.append(("connected",))

        def send_command(self, *words: str) -> None:
            sent.append(words)

        def read_response(self) -> None:
            raise redis.ResponseError("unknown command")

    named(Connection())
    assert sent == [("connected",), ("CLIENT", "SETNAME", "w1")]


def test_after_a_fork_each_client_has_connections_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_new_pools", WeakKeyDictionary())
    clients = patient_client(SETTINGS), worker_client(SETTINGS, "w1")
    before = [client.connection_pool for client in clients]
    connection._replace_pools()
    for client, pool in zip(clients, before, strict=True):
        assert client.connection_pool is not pool
        assert isinstance(client.connection_pool, redis.ConnectionPool)
        assert client.get_connection_kwargs()["socket_timeout"] == pool.connection_kwargs["socket_timeout"]
