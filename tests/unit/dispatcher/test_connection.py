"""What Redis's errors mean: what it answered, whether that passes, and what a person can do."""

from __future__ import annotations

import pytest
import redis
from redis.exceptions import BusyLoadingError, MasterDownError, MovedError, NoPermissionError

from dispatcher import LedgerRefusedError, LedgerUnavailableError
from dispatcher.ledger.connection import RedisErrors, is_trouble, reply_of

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
    assert str(reply_of(error)).startswith(reply)
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
