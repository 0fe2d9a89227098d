"""Broker, ledger and results over TLS: whom the parts trust, on a real Redis."""

from __future__ import annotations

import json
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
from support.redis_server import RedisServer, free_port

from dispatcher import Dispatcher, LedgerUnavailableError, Settings
from dispatcher.celery_app import make_celery

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
def url(tmp_path: Path, ca_file: Path) -> Iterator[str]:
    """A Redis with a certificate of an authority that nobody knows by himself."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(ca_file))
    own = authority.issue_cert("127.0.0.1")
    own.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "redis.pem"))
    pem, port = str(tmp_path / "redis.pem"), free_port()
    options = ["--tls-port", str(port), "--tls-cert-file", pem, "--tls-key-file", pem]
    try:
        server = RedisServer(
            tmp_path, *options, "--tls-ca-cert-file", str(ca_file), "--tls-auth-clients", "no"
        )
    except AssertionError:
        pytest.skip("this redis-server was built without TLS")
    yield f"rediss://127.0.0.1:{port}/0"
    server.stop()


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
    worker = start_worker(tmp_path / "worker.log", environment, "--task-events")
    flower = Flower(tmp_path / "flower.log", environment)
    try:
        done = dispatcher("run", "-", "--json", text=json.dumps(PLAN), **environment)
        assert (done.returncode, done.stderr) == (0, "")
        assert dispatcher("doctor", **environment).returncode == 0
        eventually(lambda: [task["state"] for task in flower.tasks().values()] == ["SUCCESS"], within_s=20)
        assert "Traceback" not in worker.output + flower.output
    finally:
        flower.stop()
        worker.stop()


def test_nobody_talks_to_a_redis_whose_certificate_is_of_nobody_known(url: str) -> None:
    app = app_of(url)
    with pytest.raises(OperationalError, match="CERTIFICATE_VERIFY_FAILED"):
        reach_the_broker(app)
    with pytest.raises(redis.ConnectionError, match="CERTIFICATE_VERIFY_FAILED"):
        app.backend.client.ping()
    with (
        Dispatcher(Settings(redis_url=SecretStr(url))) as client,
        pytest.raises(LedgerUnavailableError, match="certificate verify failed"),
    ):
        client.submit(abort_plan())


def test_whom_to_trust_is_said_in_the_url(url: str, ca_file: Path) -> None:
    app = app_of(f"{url}?ssl_ca_certs={ca_file}")
    reach_the_broker(app)
    assert app.backend.client.ping()
