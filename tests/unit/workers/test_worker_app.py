"""Worker applications, and the options of Celery that no worker of ours can honour."""

from __future__ import annotations

import os
import subprocess
import sys

from dispatcher import Settings
from dispatcher.tasks.messages import RUN_PLAN
from workers.tasks.app import create_worker_app


def test_two_apps_in_one_process_have_a_task_each() -> None:
    first = create_worker_app(Settings(key_prefix="first"))
    second = create_worker_app(Settings(key_prefix="second"))
    assert first.tasks[RUN_PLAN].app is first
    assert second.tasks[RUN_PLAN].app is second


def test_another_pool_is_refused_with_a_sentence() -> None:
    """Acceptance tests try more, in processes that begin at once."""
    command = [sys.executable, "-m", "celery", "--app", "workers.app", "worker", "--pool", "prefork"]
    away = os.environ | {"DISPATCHER_REDIS_URL": "redis://127.0.0.1:1/0"}
    done = subprocess.run(command, env=away, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert "error: --pool prefork cannot carry plans out" in done.stderr
    assert "Traceback" not in done.stderr
