"""Options of Celery that no worker of ours can honour end it with a sentence."""

from __future__ import annotations

import pytest
from support.command_line import run_program

REFUSED = {
    "--pool prefork": (["--pool", "prefork"], {}, "--pool prefork cannot carry plans out"),
    "-P solo": (["-P", "solo"], {}, "--pool solo cannot carry plans out"),
    "-EP prefork": (["-EP", "prefork"], {}, "--pool prefork cannot carry plans out"),
    "a name with threads in it": (["-n", "threads@h", "-Pprefork"], {}, "--pool prefork cannot"),
    "CELERY_WORKER_POOL": ([], {"CELERY_WORKER_POOL": "prefork"}, "--pool prefork cannot carry plans out"),
    "--autoscale": (["--autoscale", "4,1"], {}, "--autoscale has no effect on threads"),
}


@pytest.mark.parametrize(("options", "environment", "sentence"), REFUSED.values(), ids=REFUSED)
def test_what_threads_cannot_do_is_refused_with_a_sentence(
    options: list[str], environment: dict[str, str], sentence: str
) -> None:
    away = {"DISPATCHER_REDIS_URL": "redis://127.0.0.1:1/0"}
    done = run_program("celery", "--app", "workers.app", "worker", *options, **away, **environment)
    assert done.returncode == 2
    assert f"error: {sentence}" in done.stderr
    assert "Traceback" not in done.stderr
