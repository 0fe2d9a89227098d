"""Fixtures that many tests share."""

from __future__ import annotations

import gc
import os
import signal
import sys
from typing import TYPE_CHECKING

import fakeredis
import hypothesis
import pytest
import redis
from pydantic import SecretStr
from support.redis_server import RedisServer, RedisServers, free_port, programs, version_of
from support.servers import versions_to_test
from support.spans import Spans
from support.spread import spread
from support.stopwatch import Stopwatch

from dispatcher import Settings
from dispatcher.devstack.stack import redis_server as program_of_redis
from dispatcher.ledger.ledger import Ledger
from dispatcher.telemetry.traces import TRACER

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path


# A shell's `&` has a program ignore Ctrl-C, and all that this program starts.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Tests start hundreds of processes, each of which would compile all modules again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# How long an example takes depends on what else the machine does.
hypothesis.settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any machine")

pytest_plugins = ["support.leftovers", "support.passed", "support.skips"]


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests say themselves what is configured."""
    for name in [name for name in os.environ if name.startswith(("DISPATCHER_", "OTEL_"))]:
        monkeypatch.delenv(name)


def pytest_addoption(parser: pytest.Parser) -> None:
    add = parser.getgroup("servers", "of all servers that the machine has, use").addoption
    add("--one-server", action="store_true", help="only the one that the product starts")
    add("--all-servers", action="store_true", help="each version, not only the oldest and the newest")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run tests that are marked `every_server`, or use `redis_client`, on several versions of the servers."""
    servers = versions_to_test(metafunc.config)
    marked = metafunc.definition.get_closest_marker("every_server") is not None
    if marked and "redis_version" in metafunc.fixturenames:
        metafunc.parametrize("redis_version", servers)
    if "redis_client" in metafunc.fixturenames:
        metafunc.parametrize("redis_client", ["fake", *servers], indirect=True)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Look for no garbage among what is imported for all tests: that takes a second in each process."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(trylast=True)  # after plugins that leave tests out
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What lasts long begins first, and the others run meanwhile."""
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    lasting = [item for item in items if item.get_closest_marker("lasts_long")]
    others = [item for item in items if not item.get_closest_marker("lasts_long")]
    items[:] = spread(lasting, others, processes)


@pytest.fixture(scope="session")
def redis_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServers]:
    """All are started at once, so that no test has one started that outlives it."""
    with RedisServers(tmp_path_factory.mktemp("redis")) as servers:
        yield servers


@pytest.fixture
def redis_version() -> str:
    """The version that the product starts here. Tests marked `every_server` run on each version."""
    return version_of(program_of_redis())


@pytest.fixture
def redis_server(redis_servers: RedisServers, redis_version: str) -> Iterator[RedisServer]:
    """An empty real Redis, for tests that leave it running."""
    with redis_servers.emptied(redis_version) as server:
        yield server


@pytest.fixture
def own_redis(redis_version: str, tmp_path: Path) -> Iterator[RedisServer]:
    """A real Redis for one test, which may kill or spoil it."""
    folder = tmp_path / "own-redis"
    folder.mkdir()
    with RedisServer(folder, program=programs()[redis_version]) as server:
        yield server


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
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


@pytest.fixture
def redis_client(request: pytest.FixtureRequest) -> Iterator[redis.Redis]:
    """A fake Redis, and a real one of each version, one after the other."""
    if request.param == "fake":
        yield request.getfixturevalue("fake_redis")
        return
    redis_servers: RedisServers = request.getfixturevalue("redis_servers")
    with (
        redis_servers.emptied(request.param) as server,
        redis.Redis.from_url(server.url, decode_responses=True) as client,
    ):
        yield client


@pytest.fixture
def ledger(redis_client: redis.Redis) -> Ledger:
    return Ledger(redis_client, Settings())


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Spans:
    """The spans of this process, only for this test: a provider is installed once and for all otherwise."""
    spans = Spans()
    monkeypatch.setattr(TRACER, "_real_tracer", spans.tracer)
    return spans


@pytest.fixture
def stopwatch() -> Stopwatch:
    """Started before the test."""
    return Stopwatch()


@pytest.fixture
def free_tcp_port() -> int:
    """A loopback port on which no program listens."""
    return free_port()
