"""Connections to Redis, and what Redis's errors mean. No other module of ours classifies them.

Trouble passes, and is waited out: Redis does not answer, or it answers that it takes no commands for now. Any
other error comes back however often the command is sent: a wrong password, a missing permission, a defect.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import EqualJitterBackoff, NoBackoff
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry

from dispatcher.errors import LedgerRefusedError, LedgerUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from dispatcher.settings.settings import Settings

__all__ = [
    "RedisErrors",
    "advice_on",
    "async_client",
    "impatient_client",
    "impatient_timeout_s",
    "is_other_server",
    "is_trouble",
    "patient_client",
    "replies_of",
    "reply_of",
    "subscribing_client",
    "worker_client",
]

RETRIES = 3
MOST_CONNECTIONS = 10_000
"""A thread that waits for a plan keeps a connection; redis-py's own limit of 100 would refuse the others."""

TROUBLE = {
    "READONLY": "It is a replica: point redis_url at the primary",
    "NOREPLICAS": "Too few replicas are connected: start them, or lower min-replicas-to-write",
    "MISCONF": "It cannot save its data: see its log, and whether its disk is full",
    "OOM": "Its memory is full: raise maxmemory, or keep results for a shorter time (result_expires_sec)",
    "LOADING": "It loads its data, and will be there once that is done",
    "MASTERDOWN": "It is a replica without its primary: start that, or point redis_url at the new one",
    "UNBLOCKED": "Its role has changed: point redis_url at the primary",
    "BUSY": "A script keeps it busy: SCRIPT KILL ends that",
    "MOVED": "It is one node of a cluster: point redis_url at a Redis that holds all keys",
    "ASK": "It is one node of a cluster: point redis_url at a Redis that holds all keys",
    "CLUSTERDOWN": "Its cluster is down: see its log",
    "TRYAGAIN": "Its cluster moves keys, and will have done so soon",
}
"""Replies that pass by themselves or by a person's hand, and what that person can do."""

ADVICE = {
    "max number of clients": "Too many programs are connected: raise maxclients, or end some of them",
    "DENIED": "It serves its own machine only: set a password, or protected-mode no",
    "DB index": "Does redis_url name a database that it has?",
    "unknown command": "It is older than Redis 6.2, or its configuration renames the command",
}
"""For replies whose first word says too little: what they have in them."""

OTHER_SERVER = {"READONLY", "MASTERDOWN", "UNBLOCKED", "LOADING", "MOVED"}
"""Replies after which the same address may lead to another server: a new primary, for example."""

IN_SCRIPT = re.compile(r": -([A-Z]+ .*)")
"""Redis 6 wraps what a command answers inside a script: `Error running script ...: 9: -OOM command ...`."""

IN_PIPELINE = re.compile(r"^Command # \d+ \(.*?\) of pipeline caused error: ", re.DOTALL)
"""What redis-py adds to a reply in a pipeline."""

SCRIPT_NAME = re.compile(r"\.? script: [0-9a-f]{40}, on @user_script:\d+")
"""Redis 7 adds this to it."""

CODE = re.compile(r"[A-Z]{3,}\b")

_new_pools: WeakKeyDictionary[redis.Redis, Callable[[], redis.ConnectionPool]] = WeakKeyDictionary()


def patient_client(settings: Settings) -> redis.Redis:
    """A client that answers in text. Threads may share it, and so may processes that fork later.

    A broken connection is replaced, and the command is sent again, `RETRIES` times within a second. A command
    without an answer fails after `redis_timeout_sec`.
    """
    return _client(settings, settings.redis_timeout_sec, _retry(Retry))


def impatient_client(settings: Settings) -> redis.Redis:
    """A client that gives up within about a second."""
    retry = Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,))
    return _client(settings, impatient_timeout_s(settings), retry)


def worker_client(settings: Settings, name: str = "") -> redis.Redis:
    """A client for the loops of a worker, which repeat what failed within the time of a lease.

    Redis lists its connections by `name` (`CLIENT LIST`), if one is given.
    """
    timeout_s = min(settings.redis_timeout_sec, settings.worker.lease_sec / 3)
    return _client(settings, timeout_s, Retry(NoBackoff(), 0), name)


def impatient_timeout_s(settings: Settings) -> float:
    """How long such a client waits to be connected, and then for a reply."""
    return min(1.0, settings.redis_timeout_sec) / 2


def async_client(settings: Settings) -> redis.asyncio.Redis:
    """`patient_client` for asyncio, within one event loop."""
    return _async_client(settings, _retry(AsyncRetry))


def subscribing_client(settings: Settings) -> redis.asyncio.Redis:
    """A client for subscriptions. An error ends a subscription: redis-py restores none by itself."""
    return _async_client(settings, AsyncRetry(NoBackoff(), 0, supported_errors=()))


def replies_of(replies: list[Any]) -> list[Any]:
    """The replies, if none is an error. Raises the first `redis.ResponseError` among them."""
    for reply in replies:
        if isinstance(reply, redis.ResponseError):
            raise reply
    return replies


def reply_of(error: redis.RedisError) -> str | None:
    """What Redis answered, its code first: `OOM command not allowed ...`. None if it did not answer."""
    text = IN_PIPELINE.sub("", str(error))
    if error.status_code is None and not isinstance(error, redis.ResponseError):
        return None
    wrapped = IN_SCRIPT.search(text)
    if wrapped is not None:
        text = wrapped[1]
    elif error.status_code is not None and not text.startswith(error.status_code):
        text = f"{error.status_code} {text}"
    return SCRIPT_NAME.sub("", text).rstrip(".")


def is_other_server(reply: object) -> bool:
    """Whether the reply is one after which a new connection may lead to another server."""
    return isinstance(reply, redis.ResponseError) and _code(reply) in OTHER_SERVER


def is_trouble(error: redis.RedisError) -> bool:
    """Whether the error passes, so that waiting and asking again makes sense."""
    if isinstance(error, redis.ResponseError):
        return _code(error) in TROUBLE
    return isinstance(error, redis.ConnectionError | redis.TimeoutError) and not isinstance(
        error, redis.AuthenticationError
    )


def advice_on(error: redis.RedisError) -> str:
    """What a person can do about it."""
    code = _code(error)
    if code in TROUBLE:
        return TROUBLE[code]
    reply = reply_of(error)
    found = next((advice for words, advice in ADVICE.items() if words.lower() in (reply or "").lower()), None)
    if found is not None:
        return found
    if isinstance(error, redis.AuthenticationError):
        return "Does redis_url have the right user and password?"
    if isinstance(error, redis.exceptions.NoPermissionError):
        return "Give the user in redis_url the permission"
    if is_trouble(error):
        return "Is it running, and is redis_url right?" if reply is None else "Its log may say why"
    return "Another program may use the same key_prefix; otherwise report the defect"


class RedisErrors:
    """A block in which Redis's errors become ours. May be entered again, and by several threads at once."""

    def __init__(self, address: str) -> None:
        """`address` is Redis's address, as people know it."""
        self._address = address

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, exc: BaseException | None, traceback: object) -> None:
        if isinstance(exc, redis.RedisError):
            raise self.translate(exc) from exc
        if isinstance(exc, redis.ChildDeadlockedError):
            message = f"Redis at {self._address} cannot be asked from this process"
            raise LedgerUnavailableError(f"{message}: it was forked while a connection was made") from exc

    def translate(self, error: redis.RedisError) -> LedgerUnavailableError:
        """`LedgerUnavailableError` for trouble, `LedgerRefusedError` for what does not pass."""
        kind = LedgerUnavailableError if is_trouble(error) else LedgerRefusedError
        reply = reply_of(error)
        if reply is None:
            happened = f"did not answer: {str(error).rstrip('.')}"
        else:
            happened = f"refused a command: {reply}"
        return kind(f"Redis at {self._address} {happened}. {advice_on(error)}")


def _async_client(settings: Settings, retry: AsyncRetry) -> redis.asyncio.Redis:
    options = _options(settings.redis_timeout_sec)
    return redis.asyncio.Redis.from_url(settings.redis_url.get_secret_value(), **options, retry=retry)


def _client(settings: Settings, timeout_s: float, retry: Retry, name: str = "") -> redis.Redis:
    named = {"redis_connect_func": partial(_connect_as, name)} if name else {}

    def new_pool() -> redis.ConnectionPool:
        url = settings.redis_url.get_secret_value()
        return redis.ConnectionPool.from_url(url, **_options(timeout_s), **named, retry=retry)

    client = redis.Redis.from_pool(new_pool())
    _new_pools[client] = new_pool
    return client


def _connect_as(name: str, connection: redis.Connection) -> None:
    """Name the connection. A Redis that refuses that is as good."""
    connection.on_connect()  # type: ignore[no-untyped-call]
    connection.send_command("CLIENT", "SETNAME", name)  # type: ignore[no-untyped-call]
    with suppress(redis.ResponseError):
        connection.read_response()


def _replace_pools() -> None:
    """After a fork, in the child: redis-py's pools start again by themselves, except locks that were held.

    A thread of the parent may have held one at that moment; the child lacks that thread, so nothing would
    release it.
    """
    for client, new_pool in list(_new_pools.items()):
        client.connection_pool = new_pool()


os.register_at_fork(after_in_child=_replace_pools)


def _options(timeout_s: float) -> dict[str, Any]:
    return {
        "decode_responses": True,
        "encoding_errors": "backslashreplace",  # bytes that are not text spoil one record only
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "max_connections": MOST_CONNECTIONS,
        "maint_notifications_config": MaintNotificationsConfig(
            enabled=False
        ),  # a hosted Redis's; costs a call
        "retry_on_error": [redis.ReadOnlyError, redis.exceptions.MasterDownError],  # over a new connection
    }


def _retry(kind: type[Any]) -> Any:
    """For broken connections. A command that got no answer in time has taken its time."""
    backoff = EqualJitterBackoff(cap=0.5, base=0.1)
    return kind(backoff, RETRIES, supported_errors=(redis.ConnectionError,))


def _code(error: redis.RedisError) -> str:
    """The first word of Redis's reply, `OOM` for example. Empty if there is none."""
    found = CODE.match(reply_of(error) or "")
    return "" if found is None else found[0]
