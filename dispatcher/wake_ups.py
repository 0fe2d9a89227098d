"""Wake-ups: the Celery messages that tell a worker which plan to act on.

They are tasks by Celery's message protocol 2, in the envelope of kombu's Redis transport. The way of these
libraries from arguments to this text takes four times as long, for it serves all kinds of tasks and brokers.
"""

from __future__ import annotations

import base64
import json
import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

__all__ = ["RUN_PLAN", "WakeUp"]

RUN_PLAN = "dispatcher.run_plan"
"""Name of the one task. Its only argument is the plan id, which is the task id too."""

HEADERS = {
    "lang": "py",
    "task": RUN_PLAN,
    "group": None,
    "parent_id": None,
    "retries": 0,
    "kwargsrepr": "{}",
    "origin": "dispatcher",
    "ignore_result": True,
}
"""What is the same for all of them. Without what says nothing and need not be there."""

PERSISTENT = 2
"""AMQP's delivery mode, as kombu has it."""


@dataclass(frozen=True, slots=True)
class WakeUp:
    """What a worker is told: which plan to act on, and how people call it."""

    plan_id: str
    title: str
    urgent: bool = False
    """The plan was cancelled, and no worker has taken it up so far."""

    after_s: float = 0.0
    """How long the worker keeps it before it acts."""

    def message(self, queue: str) -> str:
        """What is pushed to the list `queue` in Redis, for a Celery worker to pop."""
        headers = HEADERS | {"id": self.plan_id, "root_id": self.plan_id, "argsrepr": self.title}
        if self.after_s > 0:
            headers["eta"] = (datetime.now(UTC) + timedelta(seconds=self.after_s)).isoformat()
        body = json.dumps([[self.plan_id], {}, {}]).encode()
        envelope = {
            "body": base64.b64encode(body).decode(),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": headers,
            "properties": {
                "correlation_id": self.plan_id,
                "reply_to": "",
                "delivery_mode": PERSISTENT,
                "delivery_info": {"exchange": "", "routing_key": queue},
                "priority": 0,
                "body_encoding": "base64",
                "delivery_tag": f"{random.getrandbits(128):032x}",
            },
        }
        return json.dumps(envelope)
