"""The waker on a real Redis: who is woken, and when it looks again."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import redis
from pydantic import SecretStr
from support.eventually import eventually
from support.plans import abort_plan

from dispatcher import Settings
from dispatcher.ledger import Submission, connect
from dispatcher.record import Order
from dispatcher.settings import WakerSettings
from dispatcher.wake_ups import WakeUp
from workers.waker import Waker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.redis_server import RedisServer

    from dispatcher.ledger import Ledger

pytestmark = pytest.mark.every_server

DUE = "{dispatcher}:due"
PATIENT = WakerSettings(max_sleep_sec=2, idle_sleep_sec=2)


@pytest.fixture
def real_ledger(settings: Settings) -> Iterator[Ledger]:
    ledger = connect(settings)
    yield ledger
    ledger.close()


def submit(ledger: Ledger, redis_server: RedisServer, *ids: str) -> None:
    """Submitted, begun before, and due again for the waker."""
    for plan_id in ids:
        ledger.submit([Submission(plan_id, Order(plan=abort_plan(), executor="default", timeout_ms=30_000))])
        redis_server.client.hdel(f"{{dispatcher}}:plan:{plan_id}", "wakes")
        redis_server.client.zadd(DUE, {plan_id: 0})


def waker_on(ledger: Ledger, settings: WakerSettings) -> Waker:
    return Waker(ledger, settings, take=lambda plan_id: None)


def messages(redis_server: RedisServer) -> list[dict[str, Any]]:
    return [json.loads(message)["headers"] for message in redis_server.client.lrange("dispatcher", 0, -1)]


def test_due_plans_are_woken_once_and_readable_in_flower(
    real_ledger: Ledger, redis_server: RedisServer
) -> None:
    submit(real_ledger, redis_server, "p1", "p2")
    waker = waker_on(real_ledger, WakerSettings())
    waker.wake_due()
    waker.wake_due()
    headers = messages(redis_server)
    assert {message["id"] for message in headers} == {"p1", "p2"}
    assert len(headers) == 2
    assert headers[0]["argsrepr"] == str(abort_plan())


def test_waking_subscribes_to_nothing(real_ledger: Ledger, redis_server: RedisServer) -> None:
    submit(real_ledger, redis_server, "p1")
    waker_on(real_ledger, WakerSettings()).wake_due()
    assert redis_server.client.pubsub_channels() == []


def test_a_full_batch_is_followed_by_the_next_at_once(settings: Settings, redis_server: RedisServer) -> None:
    ledger = connect(settings.model_copy(update={"waker": WakerSettings(batch=2)}))
    submit(ledger, redis_server, "p1", "p2", "p3")
    waker = waker_on(ledger, WakerSettings())
    assert waker.wake_due() == 0.0
    assert waker.wake_due() > 0.0
    assert len(messages(redis_server)) == 3
    ledger.close()


def test_the_waker_sleeps_until_the_next_plan_is_due(real_ledger: Ledger, redis_server: RedisServer) -> None:
    waker = waker_on(real_ledger, PATIENT)
    assert 1.5 <= waker.wake_due() <= 2
    submit(real_ledger, redis_server, "p1")
    assert waker.wake_due() == pytest.approx(1.0, abs=0.2)  # its patience with the wake-up just sent


def test_a_wait_that_begins_while_the_waker_sleeps_is_seen_in_time(
    real_ledger: Ledger, redis_server: RedisServer
) -> None:
    waker = waker_on(real_ledger, PATIENT)
    waker.start()
    try:
        eventually(lambda: waker._next_look > 0, within_s=5)
        submit(real_ledger, redis_server, "p1")
        waker.expect(10)
        eventually(lambda: messages(redis_server), within_s=1)
    finally:
        waker.stop()


def test_wake_ups_whose_sending_breaks_off_are_no_error_and_later_ones_go(own_redis: RedisServer) -> None:
    ledger = connect(Settings(redis_url=SecretStr(own_redis.url)))
    ledger.wake([WakeUp("p1", "one")])
    own_redis.kill()
    ledger.wake([WakeUp("p2", "two")])
    own_redis.start()
    ledger.wake([WakeUp("p3", "three")])
    assert [message["id"] for message in messages(own_redis)] == ["p3"]
    ledger.close()


def test_a_waker_without_redis_looks_again_later(free_tcp_port: int) -> None:
    gone = connect(Settings(redis_url=SecretStr(f"redis://127.0.0.1:{free_tcp_port}/0")))
    assert waker_on(gone, WakerSettings(max_sleep_sec=0.25)).wake_due() == 0.25
    gone.close()


def test_wake_ups_that_cannot_be_sent_come_due_again(
    real_ledger: Ledger, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(real_ledger, redis_server, "p1")
    with monkeypatch.context() as cut_off:
        cut_off.setattr(redis.Redis, "lpush", _no_answer)
        waker_on(real_ledger, WakerSettings()).wake_due()
    redis_server.client.zincrby(DUE, -1_000, "p1")
    assert [wake_up.plan_id for wake_up in real_ledger.claim_due().wake_ups] == ["p1"]


def _no_answer(*_: object) -> None:
    raise redis.ConnectionError("gone")
