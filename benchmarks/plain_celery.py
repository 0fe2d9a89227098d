"""What a user of plain Celery would write instead: late acknowledgement, and `self.retry(countdown=...)`.

Set up as Celery's documentation recommends for tasks that must not be lost. `PLAIN_REDIS` and
`PLAIN_EXECUTOR` say where Redis and the Executor are.
"""

from __future__ import annotations

import os
from typing import Any

import requests
from celery import Celery

VISIBILITY_TIMEOUT_S = 10

app = Celery("plain", broker=os.environ.get("PLAIN_REDIS"), backend=os.environ.get("PLAIN_REDIS"))
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    worker_pool="threads",
    worker_concurrency=8,
    broker_transport_options={"visibility_timeout": VISIBILITY_TIMEOUT_S},
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    result_backend_always_retry=True,
)


@app.task(bind=True, max_retries=None, name="plain.carry_out")  # type: ignore[untyped-decorator]
def carry_out(self: Any, plan: dict[str, Any], apply_id: str | None = None) -> dict[str, Any]:
    """Apply, wait, ask for the status, collect the metrics."""
    base = os.environ["PLAIN_EXECUTOR"] + "/v1/faults"
    try:
        if apply_id is None:
            answer = requests.post(f"{base}/apply", json=plan, timeout=(1, 2))
            answer.raise_for_status()
            found = answer.json()["apply_id"]
            raise self.retry(args=[plan, found], countdown=plan["duration_seconds"])
        status = requests.get(f"{base}/{apply_id}/status", timeout=(1, 2))
        status.raise_for_status()
        if status.json()["status"] == "running":
            raise self.retry(countdown=0.5)
        metrics = requests.get(f"{base}/{apply_id}/metrics", timeout=(1, 2))
        metrics.raise_for_status()
        return dict(metrics.json())
    except (requests.RequestException, ValueError) as exc:
        raise self.retry(exc=exc, countdown=1) from exc
