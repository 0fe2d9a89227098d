"""The command line bears with what goes wrong around it: Redis that restarts, spoiled records, odd values."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from support.command_line import WARM, dispatcher
from support.eventually import eventually
from support.plans import abort_plan
from support.processes import WarmProcess, start_worker

if TYPE_CHECKING:
    from pathlib import Path

    import redis
    from support.redis_server import RedisServer
    from support.stub_executor import StubExecutor

PLAN = abort_plan(duration_seconds=2).model_dump(mode="json", exclude_none=True)


def test_run_survives_a_redis_that_restarts(
    own_redis: RedisServer, stub: StubExecutor, tmp_path: Path
) -> None:
    own_redis.client.config_set("appendonly", "yes")
    own_redis.client.config_set("appendfsync", "always")
    address = {"DISPATCHER_REDIS_URL": own_redis.url}
    command = [WARM, "run", "-", "--json"]
    executor = {"DISPATCHER_EXECUTORS__DEFAULT__BASE_URL": stub.url}
    with (
        start_worker(tmp_path / "worker.log", address | executor),
        WarmProcess(
            command, tmp_path / "out", address, standard_input=json.dumps(PLAN), errors=tmp_path / "err"
        ) as run,
    ):
        eventually(lambda: stub.running)
        own_redis.kill()
        eventually(lambda: "Waiting for Redis" in (tmp_path / "err").read_text())
        own_redis.start(more=["--appendonly", "yes"])
        assert run.wait() == 0, (tmp_path / "err").read_text()
        [line] = [json.loads(line) for line in run.output.splitlines()]
    assert "observation" in line


@pytest.mark.parametrize(
    "command", [["status", "p1"], ["watch", "--once"], ["watch", "--json"], ["metrics"], ["doctor"]]
)
@pytest.mark.parametrize(
    "spoiled",
    [
        {"v": "1", "order": "nonsense", "submitted_ms": "1", "due_ms": "1", "state": "queued"},
        {"v": "9"},
        {"state": "odd", "due_ms": "soon"},
        {"started_ms": "9" * 30},
        {"applied_ms": "-5", "state": "running", "apply_id": "f1"},
        {"takes_effect_ms": "9" * 18, "applied_ms": "1"},
        {"failures": "[[1,2]]"},
    ],
    ids=[
        "no order",
        "another version",
        "an odd state",
        "a late time",
        "an early time",
        "a long time",
        "failures",
    ],
)
def test_a_spoiled_record_is_a_sentence(
    command: list[str], spoiled: dict[str, str], redis_url: str, real_redis: redis.Redis
) -> None:
    done = dispatcher("submit", "-", text=json.dumps(PLAN), DISPATCHER_REDIS_URL=redis_url)
    plan_id = done.stdout.strip()
    real_redis.hset(f"{{dispatcher}}:plan:{plan_id}", mapping=spoiled)  # type: ignore[arg-type]
    arguments = [plan_id if each == "p1" else each for each in command]
    done = dispatcher(*arguments, DISPATCHER_REDIS_URL=redis_url)
    assert "Traceback" not in done.stderr
    assert "a defect" not in done.stderr
    assert done.returncode in {0, 1, 19}


@pytest.mark.parametrize(
    "command", [["breaker", "show"], ["doctor"], ["metrics"], ["watch", "--once"], ["health"]]
)
@pytest.mark.parametrize(
    ("key", "fields"),
    [
        ("breaker:default", {"state": "odd"}),
        ("breaker:default", {"since_ms": "soon", "state": "open"}),
        ("counts", {"submitted": "many", "observed": "few"}),
        ("metrics:default", {"apply.answered": "many"}),
        ("health:default", {"a": "hash"}),
        ("halt", {"a": "hash"}),
        ("due", {"a": "hash"}),
    ],
)
def test_a_spoiled_key_is_a_sentence(
    command: list[str], key: str, fields: dict[str, str], redis_url: str, real_redis: redis.Redis
) -> None:
    real_redis.hset(f"{{dispatcher}}:{key}", mapping=fields)  # type: ignore[arg-type]
    arguments = [*command, "--timeout-sec", "0.1"] if command == ["health"] else command
    done = dispatcher(*arguments, DISPATCHER_REDIS_URL=redis_url)
    assert "Traceback" not in done.stderr
    assert "a defect" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", ""],
        ["run", "/"],
        ["run", "-", "--timeout-sec", "nan"],
        ["run", "-", "--expires", "inf"],
        ["run", "-", "--executor", "nowhere"],
        ["plan", "check", "-", "--executor", "nowhere"],
        ["plan", "check", "-", "--header", "x-test-run"],
        ["run", "-", "--header", "Cookie: a=b"],
        ["result", "p1", "--timeout-sec", "nan"],
        ["result", "p1", "--timeout-sec", "-1"],
        ["status", ""],
        ["watch", "--interval-sec", "nan"],
        ["health", "--timeout-sec", "nan"],
        ["up", "--traffic-rps", "nan"],
        ["metrics", "--executor", "nowhere"],
        ["doctor", "--flower", "nonsense"],
    ],
    ids=lambda arguments: " ".join(arguments) if isinstance(arguments, list) else None,
)
def test_a_wrong_value_ends_a_command_with_a_sentence_and_2(arguments: list[str], redis_url: str) -> None:
    done = dispatcher(*arguments, text=json.dumps(PLAN), DISPATCHER_REDIS_URL=redis_url)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr
    assert done.stderr
