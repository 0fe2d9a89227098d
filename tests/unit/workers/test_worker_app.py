"""Worker applications, and the options of Celery that no worker of ours can honour."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from dispatcher import Settings
from dispatcher.tasks.messages import RUN_PLAN
from workers.tasks.app import create_worker_app

REFUSED = {
    "--pool prefork": (["--pool", "prefork"], {}, "--pool prefork cannot carry plans out"),
    "-P solo": (["-P", "solo"], {}, "--pool solo cannot carry plans out"),
    "-EP prefork": (["-EP", "prefork"], {}, "--pool prefork cannot carry plans out"),
    "a name with threads in it": (["-n", "threads@h", "-Pprefork"], {}, "--pool prefork cannot"),
    "CELERY_WORKER_POOL": ([], {"CELERY_WORKER_POOL": "prefork"}, "--pool prefork cannot carry plans out"),
    "--autoscale": (["--autoscale", "4,1"], {}, "--autoscale has no effect on threads"),
}


def test_two_apps_in_one_process_have_a_task_each() -> None:
    first = create_worker_app(Settings(key_prefix="first"))
    second = create_worker_app(Settings(key_prefix="second"))
    assert first.tasks[RUN_PLAN].app is first
    assert second.tasks[RUN_PLAN].app is second


@pytest.mark.parametrize(("options", "environment", "sentence"), REFUSED.values(), ids=REFUSED)
def test_what_threads_cannot_do_is_refused_with_a_sentence(
    options: list[str], environment: dict[str, str], sentence: str
) -> None:
    command = [sys.executable, "-m", "celery", "--app", "workers.app", "worker", *options]
    away = {"DISPATCHER_REDIS_URL": "redis://127.0.0.1:1/0"}
    done = subprocess.run(
        command, env=os.environ | away | environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 2
    assert f"error: {sentence}" in done.stderr
    assert "Traceback" not in done.stderr
