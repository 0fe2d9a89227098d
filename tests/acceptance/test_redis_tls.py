"""Broker, ledger and results over TLS: whom the parts trust, on a real Redis."""

from __future__ import annotations

import json
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import pytest
import redis
import trustme
from kombu.exceptions import OperationalError
from pydantic import SecretStr
from support.command_line import dispatcher
from support.eventually import eventually
from support.flower import Flower
from support.plans import abort_plan
from support.processes import start_worker
from support.redis_server import RedisServer, ServerEndedError, free_port

from dispatcher import Dispatcher, LedgerUnavailableError, Settings
from dispatcher.ledger.ledger import connect
from dispatcher.tasks.app import make_celery

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from celery import Celery
    from support.stub_executor import StubExecutor

PLAN = abort_plan().model_dump(mode="json", exclude_none=True)


@pytest.fixture
def ca_file(tmp_path: Path) -> Path:
    return tmp_path / "ca.pem"


@pytest.fixture
def authority(ca_file: Path) -> trustme.CA:
    """One that no program trusts by itself."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(ca_file))
    return authority


@contextmanager
def tls_redis(
    folder: Path, authority: trustme.CA, *, name: str = "127.0.0.1", asks_clients: bool = False
) -> Iterator[str]:
    """A Redis with a certificate for `name`; its URL."""
    pem, port = str(folder / "redis.pem"), free_port()
    authority.issue_cert(name).private_key_and_cert_chain_pem.write_to_path(pem)
    options = ["--tls-port", str(port), "--tls-cert-file", pem, "--tls-key-file", pem]
    options += ["--tls-ca-cert-file", str(folder / "ca.pem")]
    options += ["--tls-auth-clients", "yes" if asks_clients else "no"]
    try:
        server = RedisServer(folder, *options)
    except ServerEndedError as exc:
        if "TLS support" not in str(exc) and "Bad directive" not in str(exc):
            raise
        pytest.skip("this machine has no Redis or Valkey with TLS, as servers in wheels are built without it")
    with server:
        yield f"rediss://127.0.0.1:{port}/0"


@pytest.fixture
def url(tmp_path: Path, authority: trustme.CA) -> Iterator[str]:
    with tls_redis(tmp_path, authority) as url:
        yield url


def app_of(url: str) -> Celery:
    return make_celery(Settings(redis_url=SecretStr(url)))


def reach_the_broker(app: Celery) -> None:
    with app.connection_for_write() as connection:
        connection.ensure_connection(max_retries=1, timeout=5)


def test_a_plan_is_carried_out_over_tls(url: str, ca_file: Path, stub: StubExecutor, tmp_path: Path) -> None:
    environment = {
        "DISPATCHER_REDIS_URL": f"{url}?ssl_ca_certs={ca_file}",
        "DISPATCHER_EXECUTORS__DEFAULT__BASE_URL": stub.url,
        "FLOWER_BASIC_AUTH": "operator:pa55",
    }
    with (
        start_worker(tmp_path / "worker.log", environment, "--task-events") as worker,
        Flower(tmp_path / "flower.log", environment) as flower,
    ):
        done = dispatcher("run", "-", "--json", text=json.dumps(PLAN), **environment)
        assert (done.returncode, done.stderr) == (0, "")
        assert dispatcher("doctor", **environment).returncode == 0
        eventually(lambda: [task["state"] for task in flower.tasks().values()] == ["SUCCESS"])
        assert "Traceback" not in worker.output + flower.output


def assert_refused(url: str, why: str) -> None:
    """By all three that talk to Redis."""
    app = app_of(url)
    with pytest.raises(OperationalError, match=why):
        reach_the_broker(app)
    with pytest.raises(redis.ConnectionError, match=why):
        app.backend.client.ping()
    with (
        Dispatcher(Settings(redis_url=SecretStr(url))) as client,
        pytest.raises(LedgerUnavailableError, match=why),
    ):
        client.submit(abort_plan())


def assert_trusted(url: str) -> None:
    app = app_of(url)
    reach_the_broker(app)
    try:
        assert app.backend.client.ping()
    finally:
        app.backend.client.connection_pool.disconnect()
    with Dispatcher(Settings(redis_url=SecretStr(url))) as client:
        assert client.halted() is None


def test_no_part_connects_to_a_redis_whose_certificate_is_of_an_unknown_authority(url: str) -> None:
    assert_refused(url, "self-signed certificate")


def test_whom_to_trust_is_said_in_the_url(url: str, ca_file: Path) -> None:
    assert_trusted(f"{url}?ssl_ca_certs={ca_file}")
    assert_trusted(f"{url}?ssl_cert_reqs=none")


def test_no_part_connects_to_a_redis_with_the_certificate_of_another(
    authority: trustme.CA, ca_file: Path, tmp_path: Path
) -> None:
    with tls_redis(tmp_path, authority, name="redis.example") as url:
        assert_refused(f"{url}?ssl_ca_certs={ca_file}", "IP address mismatch")


def test_a_redis_that_asks_for_a_certificate_is_shown_one(
    authority: trustme.CA, ca_file: Path, tmp_path: Path
) -> None:
    pem = tmp_path / "client.pem"
    authority.issue_cert("worker.example").private_key_and_cert_chain_pem.write_to_path(str(pem))
    with tls_redis(tmp_path, authority, asks_clients=True) as url:
        assert_trusted(f"{url}?ssl_ca_certs={ca_file}&ssl_certfile={pem}&ssl_keyfile={pem}")
        unknown = connect(Settings(redis_url=SecretStr(f"{url}?ssl_ca_certs={ca_file}")))
        with closing(unknown), pytest.raises(LedgerUnavailableError):
            unknown.ping()
