"""Celery's revoke while the ledger takes no writes: the broker, which brings it, is another Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from kombu import pools
from pydantic import SecretStr
from support.eventually import eventually
from support.fleet import close_connections
from support.plans import abort_plan
from support.redis_server import RedisServer

from dispatcher import Dispatcher, PlanCancelledError, Settings
from workers.tasks.app import create_worker_app

if TYPE_CHECKING:
    from pathlib import Path

    from support.processes import Workers
    from support.stub_executor import StubExecutor


@pytest.mark.parametrize("terminate", [False, True])
def test_what_is_revoked_while_the_ledger_takes_no_writes_is_cancelled_once_it_does(
    own_redis: RedisServer, start: Workers, stub: StubExecutor, tmp_path: Path, *, terminate: bool
) -> None:
    with RedisServer(tmp_path) as broker:
        start(stub.url, DISPATCHER_REDIS_URL=own_redis.url, DISPATCHER_BROKER_URL=broker.url)
        settings = Settings(redis_url=SecretStr(own_redis.url), broker_url=SecretStr(broker.url))
        with Dispatcher(settings) as dispatcher, create_worker_app(settings) as app:
            handle = dispatcher.submit(abort_plan(duration_seconds=60))
            eventually(lambda: handle.id in stub.running, within_s=20)
            own_redis.client.replicaof("127.0.0.1", "1")
            options: dict[str, Any] = {"terminate": terminate, "reply": True, "limit": 1, "timeout": 20}
            assert "once Redis answers" in str(app.control.revoke(handle.id, **options))
            own_redis.client.replicaof("NO", "ONE")
            with pytest.raises(PlanCancelledError):
                handle.result(30)
            assert handle.id in stub.stopped
            close_connections(app)
    pools.reset()  # type: ignore[no-untyped-call] # what has sent the revocation
