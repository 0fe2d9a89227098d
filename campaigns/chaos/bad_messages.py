"""Messages that no worker of this project has sent, as they may turn up in its queue."""

from __future__ import annotations

import base64
import json
import uuid
from functools import partial
from typing import TYPE_CHECKING, Any

from dispatcher.tasks.app import make_celery
from dispatcher.tasks.messages import RUN_PLAN

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

    import redis

    from dispatcher import Settings

NO_MESSAGES = ["garbage", "null", "5", '"text"', "[]", "[1]", "{}", ""]
"""Not JSON, or not the object that kombu expects."""

EMBED = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
BODIES: list[Any] = [None, {}, [], 5, [[], {}], [["unknown"], {}, EMBED, {}], [{}, [], EMBED], "text"]
"""Bodies of a message that is otherwise well-formed."""

COPIES = 2


class BadMessages:
    """Throws messages into the queue of the workers."""

    def __init__(self, settings: Settings, client: redis.Redis, chance: random.Random) -> None:
        self._app = make_celery(settings)
        self._queue = settings.queue
        self._client = client
        self._random = chance

    def close(self) -> None:
        """Close the connection to the broker."""
        self._app.close()

    def throw(self, plan_ids: Sequence[str]) -> None:
        """One message of each kind, in random order. `plan_ids` are of plans that were submitted."""
        raw = [*NO_MESSAGES, *(message(RUN_PLAN, self._queue, body) for body in BODIES)]
        acts: list[Callable[[], object]] = [partial(self._client.lpush, self._queue, text) for text in raw]
        acts += [self._foreign_tasks, self._unknown_plan]
        acts += [partial(self._wrong_task_id, plan_ids), partial(self.duplicate, plan_ids, 1)]
        self._random.shuffle(acts)
        for act in acts:
            act()

    def duplicate(self, plan_ids: Sequence[str], count: int) -> None:
        """Send the first message of some plans again, twice each."""
        for plan_id in self._random.sample(plan_ids, min(count, len(plan_ids))):
            for _ in range(COPIES):
                self._send(RUN_PLAN, plan_id, plan_id)

    def _foreign_tasks(self) -> None:
        self._send("other.task", "x", uuid.uuid4().hex)
        self._send("celery.accumulate", "x", uuid.uuid4().hex)

    def _unknown_plan(self) -> None:
        unknown = uuid.uuid4().hex
        self._send(RUN_PLAN, unknown, unknown)

    def _wrong_task_id(self, plan_ids: Sequence[str]) -> None:
        for plan_id in self._random.sample(plan_ids, min(1, len(plan_ids))):
            self._send(RUN_PLAN, plan_id, uuid.uuid4().hex)

    def _send(self, task: str, argument: str, task_id: str) -> None:
        self._app.send_task(task, [argument], task_id=task_id, ignore_result=True)


def message(task: str, queue: str, body: Any) -> str:
    """A message as Celery sends it over Redis, but with any body."""
    task_id = uuid.uuid4().hex
    delivery = {"delivery_mode": 2, "delivery_info": {"exchange": "", "routing_key": queue}, "priority": 0}
    tags = {"correlation_id": task_id, "body_encoding": "base64", "delivery_tag": uuid.uuid4().hex}
    return json.dumps(
        {
            "body": base64.b64encode(json.dumps(body).encode()).decode(),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": {"lang": "py", "task": task, "id": task_id, "root_id": task_id, "retries": 0},
            "properties": delivery | tags,
        }
    )
