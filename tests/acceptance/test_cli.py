"""The command line as people use it: real processes, exit codes, and what they print."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest
from support.command_line import DISPATCHER, WARM, dispatcher, run_program
from support.eventually import eventually
from support.plans import abort_plan
from support.processes import Mark, WarmProcess
from support.terminal import Terminal

if TYPE_CHECKING:
    from pathlib import Path

    from support.processes import ExecutorProcess, Workers
    from support.stub_executor import StubExecutor

PLAN = abort_plan().model_dump(mode="json", exclude_none=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_demo_that_is_interrupted_leaves_nothing_behind(number: signal.Signals, tmp_path: Path) -> None:
    mark = Mark()
    with WarmProcess([WARM, "demo"], tmp_path / "log", mark.environment) as demo:
        eventually(lambda: "submitting 5" in demo.output)
        assert any("envoy" in command for command in mark.running())
        demo.send_signal(number)
        code = demo.wait()
    assert code == {signal.SIGINT: 130, signal.SIGKILL: -9}[number]
    eventually(lambda: mark.running() == [])
    assert "Traceback" not in demo.output


def test_run_prints_what_was_asked_and_what_was_observed(
    start: Workers, executor: ExecutorProcess, redis_url: str, tmp_path: Path
) -> None:
    start(executor.url)
    (tmp_path / "plans.yaml").write_text(json.dumps([PLAN, PLAN | {"api": "/api/v1/other"}]))
    done = dispatcher("run", str(tmp_path / "plans.yaml"), DISPATCHER_REDIS_URL=redis_url)
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"abort 503 +100 +503 +1\.00", done.stdout)) == 2
    assert done.stderr == ""


def test_run_prints_json_for_scripts(start: Workers, stub: StubExecutor, redis_url: str) -> None:
    start(stub.url)
    stub.answers.append((400, {"message": "no such api"}))
    done = dispatcher("run", "-", "--json", text=json.dumps([PLAN]), DISPATCHER_REDIS_URL=redis_url)
    [line] = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 12
    assert line["plan"] == PLAN
    assert line["error"]["type"] == "ExecutorRejectedError"
    assert "no such api" in line["error"]["message"]
    done = dispatcher("run", "-", "--json", text=json.dumps([PLAN]), DISPATCHER_REDIS_URL=redis_url)
    assert done.returncode == 0
    assert json.loads(done.stdout)["observation"]["error_rate"] == 1.0


def test_a_bad_plan_is_refused_line_by_line_before_anything_is_sent(redis_url: str) -> None:
    bad = PLAN | {"percentage": 101, "service": "a b"}
    done = dispatcher("run", "-", text=json.dumps([PLAN, bad]), DISPATCHER_REDIS_URL=redis_url)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"error: standard input, plan 2, line 1: {problem}"
        for problem in (
            "service: must be a name of letters, digits, '.', '_' and '-', at most 253 long",
            "percentage: must be less than or equal to 100",
        )
    ]


@pytest.mark.parametrize(
    ("environment", "code", "told"),
    [
        ({"DISPATCHER_REDIS_URL": "redis://:pa55@127.0.0.1:1/0"}, 3, "Redis at redis://127.0.0.1:1/0"),
        ({"DISPATCHER_REDIS_URL": "nonsense"}, 2, "redis_url: must be a URL such as"),
        ({"DISPATCHER_CONFIG": "nowhere.toml"}, 2, "nowhere.toml, which does not exist"),
    ],
)
def test_what_is_wrong_outside_is_one_line(environment: dict[str, str], code: int, told: str) -> None:
    done = dispatcher("run", "-", text=json.dumps(PLAN), **environment)
    assert done.returncode == code
    [line] = done.stderr.splitlines()
    assert told in line
    assert "pa55" not in line


@pytest.mark.parametrize("buffered", [True, False], ids=["buffered", "at once"])
def test_a_full_disk_behind_the_output_is_one_line_and_no_defect(*, buffered: bool) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with open("/dev/full", "w") as full:  # noqa: PTH123 (of no folder)
        done = subprocess.run(
            [DISPATCHER, "config", "show"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            env=environment if buffered else environment | {"PYTHONUNBUFFERED": "1"},
        )
    assert done.returncode == 1
    assert done.stderr == "error: the output cannot be written: No space left on device\n"


def run_in(encoding: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run a command whose output has that encoding."""
    variables = os.environ | environment | {"PYTHONIOENCODING": encoding}
    return subprocess.run([DISPATCHER, *arguments], capture_output=True, check=False, env=variables)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_text_that_the_output_has_no_characters_for_is_shown_by_their_numbers(
    encoding: str, redis_url: str
) -> None:
    fleet = {"DISPATCHER_REDIS_URL": redis_url, "DISPATCHER_KEY_PREFIX": f"of-{encoding}"}
    reason = "café \u2713 \U0001f600"
    dispatcher("halt", reason, **fleet)
    shown = run_in(encoding, "watch", "--once", **fleet)
    assert shown.returncode == 0
    assert reason.encode(encoding, "backslashreplace") in shown.stdout


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_json_means_the_same_in_every_encoding_of_the_output(encoding: str) -> None:
    driver = "café \u2713 \U0001f600"
    done = run_in(encoding, "config", "show", "--json", DISPATCHER_EXECUTORS__DEFAULT__DRIVER=driver)
    lines = [json.loads(line) for line in done.stdout.decode(encoding).splitlines()]
    assert [line["value"] for line in lines if line["setting"] == "executors.default.driver"] == [driver]


def test_a_terminal_that_cannot_move_its_cursor_is_shown_the_plans_once(redis_url: str) -> None:
    command = [DISPATCHER, "watch"]
    with Terminal(command, {"TERM": "dumb", "DISPATCHER_REDIS_URL": redis_url}) as terminal:
        assert terminal.wait() == 0
    assert "0 plans in flight" in terminal.seen


def test_an_export_to_a_closed_output_is_one_line(redis_url: str) -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", 'exec "$0" export >&-', DISPATCHER],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"DISPATCHER_REDIS_URL": redis_url},
    )
    assert done.returncode == 2
    assert done.stderr == "error: --output: must name a file: standard output is closed\n"


def test_who_submits_to_a_full_disk_learns_how_to_find_the_plans(redis_url: str) -> None:
    fleet = os.environ | {"DISPATCHER_REDIS_URL": redis_url}
    with open("/dev/full", "w") as full:  # noqa: PTH123 (of no folder)
        done = subprocess.run(
            [DISPATCHER, "submit", "-"],
            input=json.dumps(PLAN),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            env=fleet,
        )
    assert done.returncode == 1
    hint, error = done.stderr.splitlines()
    assert error == "error: the output cannot be written: No space left on device"
    batch = hint.removeprefix("the plans were submitted: dispatcher list --batch ")
    listed = dispatcher("list", "--json", "--batch", batch, DISPATCHER_REDIS_URL=redis_url)
    assert json.loads(listed.stdout)["batch"] == batch


def test_an_executor_out_of_reach_is_one_line(start: Workers, redis_url: str, free_tcp_port: int) -> None:
    start(f"http://127.0.0.1:{free_tcp_port}", DISPATCHER_EXECUTORS__DEFAULT__RETRY_STRATEGY="none")
    done = dispatcher("run", "-", text=json.dumps(PLAN), DISPATCHER_REDIS_URL=redis_url)
    assert done.returncode == 11
    [line] = done.stderr.splitlines()
    assert f"http://127.0.0.1:{free_tcp_port}/v1/faults/apply: connection refused" in line


def test_a_worker_with_bad_settings_says_so_in_a_line() -> None:
    done = run_program("celery", "--app", "workers.app", "worker", DISPATCHER_QUEUE="not a queue")
    assert done.returncode == 2
    assert done.stderr.startswith("error: queue: ")
    assert done.stderr.count("\n") == 1


def test_progress_is_shown_on_a_terminal_only(start: Workers, stub: StubExecutor, redis_url: str) -> None:
    start(stub.url)
    outside, inside = pty.openpty()
    done = subprocess.run(
        [DISPATCHER, "run", "-"],
        input=json.dumps(PLAN).encode(),
        stdout=subprocess.PIPE,
        stderr=inside,
        env={**os.environ, "DISPATCHER_REDIS_URL": redis_url, "TERM": "xterm"},
        timeout=60,
        check=False,
    )
    os.close(inside)
    assert done.returncode == 0
    assert b"fault plans" in os.read(outside, 65_536)
    os.close(outside)


def test_run_says_when_no_worker_starts_a_plan(redis_url: str, tmp_path: Path) -> None:
    address = {"DISPATCHER_REDIS_URL": redis_url}
    command = [WARM, "run", "-"]
    with WarmProcess(command, tmp_path / "log", address, standard_input=json.dumps(PLAN)) as run:
        eventually(lambda: "Is one running?" in run.output)
        run.send_signal(signal.SIGINT)
        assert run.wait() == 130
    assert "The plans that were submitted go on" in run.output
