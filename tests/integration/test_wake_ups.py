"""Wake-ups beside what Celery and kombu would send for the same task, by way of a real Redis."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from kombu import pools

from dispatcher.celery_app import make_celery
from dispatcher.ledger import connect
from dispatcher.wake_ups import RUN_PLAN, WakeUp

if TYPE_CHECKING:
    import redis

    from dispatcher import Settings

SAYS_NOTHING: list[object] = [None, [None, None], {}, 0]
WAKE_UP = WakeUp("p1", 'abort 503 on "päyments" GET /api', after_s=2.0)


def ours(settings: Settings, wake_up: WakeUp) -> None:
    ledger = connect(settings)
    ledger.wake([wake_up])
    ledger.close()


def celerys(settings: Settings, wake_up: WakeUp) -> None:
    app = make_celery(settings)
    app.send_task(
        RUN_PLAN,
        args=[wake_up.plan_id],
        task_id=wake_up.plan_id,
        countdown=wake_up.after_s or None,
        argsrepr=wake_up.title,
        kwargsrepr="{}",
        origin="dispatcher",
        ignore_result=True,
    )
    app.close()
    pools.reset()  # type: ignore[no-untyped-call]


def sent(client: redis.Redis) -> dict[str, Any]:
    [text] = client.lrange("dispatcher", 0, -1)
    message: dict[str, Any] = json.loads(text)
    client.flushall()
    return message


@pytest.mark.every_server
def test_a_wake_up_is_the_message_that_celery_would_send(settings: Settings, real_redis: redis.Redis) -> None:
    ours(settings, WAKE_UP)
    mine = sent(real_redis)
    celerys(settings, WAKE_UP)
    theirs = sent(real_redis)
    assert mine.keys() == theirs.keys()
    assert theirs["properties"].keys() - mine["properties"].keys() <= theirs["headers"].keys()  # told twice
    for different in ("delivery_tag", "eta", "reply_to"):  # which is for another kind of result backend
        for part in (mine["properties"], mine["headers"], theirs["properties"], theirs["headers"]):
            part.pop(different, None)
    assert mine["properties"] == {name: theirs["properties"][name] for name in mine["properties"]}
    args, kwargs, embedded = json.loads(base64.b64decode(theirs["body"]))
    assert json.loads(base64.b64decode(mine["body"])) == [args, kwargs, {}]
    assert set(embedded.values()) == {None}
    said = {name: value for name, value in theirs["headers"].items() if value not in SAYS_NOTHING}
    assert {name: value for name, value in mine["headers"].items() if value not in SAYS_NOTHING} == said


@pytest.mark.every_server
@pytest.mark.parametrize("after_s", [0.0, 1.5])
def test_a_wake_up_says_when_its_worker_is_to_act(
    settings: Settings, real_redis: redis.Redis, after_s: float
) -> None:
    ours(settings, WakeUp("p1", "a plan", after_s=after_s))
    eta = sent(real_redis)["headers"].get("eta")
    assert (eta is None) == (after_s == 0)
    if eta is not None:
        assert (datetime.fromisoformat(eta) - datetime.now(UTC)).total_seconds() == pytest.approx(
            after_s, abs=1
        )


def test_no_two_wake_ups_of_a_plan_are_the_same_delivery() -> None:
    wake_up = WakeUp("p1", "a plan")
    tags = {json.loads(wake_up.message("q"))["properties"]["delivery_tag"] for _ in range(100)}
    assert len(tags) == 100
