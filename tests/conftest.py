"""Fixtures that many tests share."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import fakeredis
import pytest
import redis
from pydantic import SecretStr
from support.redis_server import RedisServer, free_port
from support.spans import Spans

from dispatcher import Settings
from dispatcher.ledger import Ledger
from dispatcher.traces import TRACER

if TYPE_CHECKING:
    from collections.abc import Iterator


pytest_plugins = ["support.skips"]


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests say themselves what is configured."""
    for name in [name for name in os.environ if name.startswith(("DISPATCHER_", "OTEL_"))]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One real Redis for all tests that leave it running."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """An empty real Redis."""
    redis_server.client.flushall()  # ours alone: this run started it
    return redis_server.url


@pytest.fixture
def settings(redis_url: str) -> Settings:
    return Settings(redis_url=SecretStr(redis_url))


@pytest.fixture
def fake_redis() -> Iterator[redis.Redis]:
    with fakeredis.FakeRedis(decode_responses=True, server=fakeredis.FakeServer()) as client:
        yield client


@pytest.fixture
def real_redis(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


@pytest.fixture(params=["fake_redis", "real_redis"], ids=["fake", "real"])
def redis_client(request: pytest.FixtureRequest) -> redis.Redis:
    """A fake and a real Redis, one after the other."""
    client: redis.Redis = request.getfixturevalue(request.param)
    return client


@pytest.fixture
def ledger(redis_client: redis.Redis) -> Ledger:
    return Ledger(redis_client, Settings())


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Spans:
    """The spans of this process, for this test alone: a provider is installed once and for all otherwise."""
    spans = Spans()
    monkeypatch.setattr(TRACER, "_real_tracer", spans.tracer)
    return spans


@pytest.fixture
def free_tcp_port() -> int:
    """A loopback port on which nobody listens."""
    return free_port()
