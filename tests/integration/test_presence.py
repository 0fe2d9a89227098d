"""Redis lists the workers that are connected, and a Redis that lists nothing is as good."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from pydantic import SecretStr
from support.eventually import eventually

from dispatcher import LedgerRefusedError, Settings
from dispatcher.ledger.connection import worker_client
from dispatcher.ledger.ledger import connect
from dispatcher.ledger.presence import connected_workers, connection_name

if TYPE_CHECKING:
    import redis
    from support.redis_server import RedisServer


@pytest.mark.every_server
def test_a_worker_is_listed_for_as_long_as_it_is_connected(settings: Settings) -> None:
    name = connection_name(settings, "one@hôst 1")
    assert name == "dispatcher:worker:one@h?st?1"
    other = settings.model_copy(update={"key_prefix": "other"})
    with (
        closing(connect(settings)) as ledger,
        closing(worker_client(settings, name)) as client,
        closing(worker_client(other, connection_name(other, "two"))) as stranger,
    ):
        client.ping()
        stranger.ping()
        assert list(connected_workers(ledger, settings)) == [name]
        client.close()
        eventually(lambda: not connected_workers(ledger, settings))


def test_a_redis_that_names_and_lists_no_clients_serves_workers_all_the_same(
    redis_server: RedisServer, real_redis: redis.Redis
) -> None:
    real_redis.acl_setuser(
        "strict", enabled=True, passwords=["+pw"], commands=["+@all", "-client"], keys=["*"], channels=["*"]
    )
    url = SecretStr(f"redis://strict:pw@127.0.0.1:{redis_server.port}/0")
    settings = Settings(redis_url=url)
    try:
        with (
            closing(connect(settings)) as ledger,
            closing(worker_client(settings, connection_name(settings, "one"))) as client,
        ):
            assert client.ping()
            with pytest.raises(LedgerRefusedError):
                connected_workers(ledger, settings)
    finally:
        real_redis.acl_deluser("strict")
