"""What operators do from the command line, on real processes."""

from __future__ import annotations

import json
import re
import signal
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import requests
from support.command_line import DISPATCHER, WARM, dispatcher
from support.eventually import eventually
from support.json_page import differences
from support.plans import abort_plan
from support.processes import Mark, Process, WarmProcess
from support.terminal import Terminal

from workers.drivers.contract import SPOKEN

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    from support.processes import Workers
    from support.stub_executor import StubExecutor

    Cli = Callable[..., subprocess.CompletedProcess[str]]

PLAN = abort_plan().model_dump(mode="json", exclude_none=True)
LONG = PLAN | {"duration_seconds": 600}


@pytest.fixture
def cli(redis_url: str) -> Cli:
    """The command line of a system with a Redis."""

    def call(*arguments: str, text: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        return dispatcher(*arguments, text=text, DISPATCHER_REDIS_URL=redis_url, **environment)

    return call


@pytest.fixture
def worker(start: Workers, stub: StubExecutor) -> Process:
    return start(stub.url)


def submitted(cli: Cli, *plans: dict[str, object]) -> list[str]:
    done = cli("submit", "-", text=json.dumps(plans))
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


def told(done: subprocess.CompletedProcess[str]) -> list[dict[str, object]]:
    """What a command has printed for scripts."""
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert {line.pop("version") for line in lines} == {1}
    return lines


@pytest.mark.usefixtures("worker")
def test_plans_are_submitted_and_their_results_fetched_by_their_ids(cli: Cli, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.json").write_text(json.dumps(PLAN | {"api": f"/{name}"}))
    done = cli("submit", f"{tmp_path}/*.json")
    ids = done.stdout.split()
    assert len(ids) == 2
    done = cli("result", *ids, "--json")
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert [result["id"] for result in results] == ids
    assert [result["plan"]["api"] for result in results] == ["/a", "/b"]
    assert all(result["observation"]["status_code"] == 503 for result in results)
    assert done.returncode == 0
    status = json.loads(cli("status", ids[0], "--json").stdout)
    assert (status["id"], status["state"]) == (ids[0], "observed")
    assert re.search(r"state +observed", cli("status", ids[0]).stdout)


def test_wildcards_that_match_nothing_are_said(cli: Cli, tmp_path: Path) -> None:
    done = cli("submit", f"{tmp_path}/*.yaml")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: {tmp_path}/*.yaml: matches no file\n"


def test_a_plan_that_is_refused_is_a_line_and_an_exit_code(cli: Cli) -> None:
    blind = {"DISPATCHER_EXECUTORS__DEFAULT__DRIVER": "policy_api"}
    done = cli("submit", "-", text=json.dumps(PLAN), **blind)
    assert (done.returncode, done.stdout) == (2, "")
    assert "add [executors.default.observer]" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.usefixtures("worker")
def test_a_result_is_waited_for_as_long_as_asked(cli: Cli) -> None:
    [plan_id] = submitted(cli, LONG)
    for asked in ("0.2", "1.25"):
        done = cli("result", plan_id, "--timeout-sec", asked)
        assert done.returncode == 7
        assert f"has not ended within {asked} s: it is " in done.stderr
    assert cli("cancel", plan_id).returncode == 0


@pytest.mark.parametrize("command", ["result", "status", "cancel"])
def test_an_unknown_plan_is_a_line(cli: Cli, command: str) -> None:
    done = cli(command, "unknown")
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr == ("error: plan unknown is unknown: its id is wrong, or its record has expired\n")
    done = cli(command, "no id")
    assert (done.returncode, done.stdout) == (2, "")
    assert "'no id' is not a plan id" in done.stderr


@pytest.mark.usefixtures("worker")
def test_a_cancelled_plan_ends_with_the_reason(cli: Cli, stub: StubExecutor) -> None:
    [plan_id] = submitted(cli, LONG)
    eventually(lambda: stub.running)
    assert cli("cancel", plan_id, "--reason", "enough").stdout == f"{plan_id} is cancelled\n"
    done = cli("result", plan_id)
    assert done.returncode == 8
    assert "was cancelled: enough" in done.stderr
    assert stub.stopped
    assert cli("cancel", plan_id).stdout == f"{plan_id} had ended already\n"


def test_a_reason_can_neither_steer_a_terminal_nor_forge_a_line(
    cli: Cli, stub: StubExecutor, worker: Process
) -> None:
    reason = "no\x1b[2J\x07\x9b31m\u202e pod\r\n2026-01-01 ERROR forged"
    cancelled, halted = submitted(cli, LONG, LONG | {"api": "/other"})
    eventually(lambda: len(stub.running) == 2, within_s=10)
    shown = [cli("cancel", cancelled, "--reason", reason)]
    eventually(lambda: cli("result", cancelled, "--timeout-sec", "1").returncode == 8, within_s=20)
    shown += [
        cli("halt", reason, "--json"),
        cli("watch", "--once"),
        cli("submit", "-", text=json.dumps(PLAN)),
    ]
    shown += [cli("result", cancelled, halted), cli("result", cancelled, "--json")]
    shown += [cli("status", cancelled), cli("status", cancelled, "--json"), cli("resume")]
    shown += [cli("breaker", "open", "--reason", reason), cli("breaker", "show"), cli("doctor")]
    printed = "".join(done.stdout + done.stderr for done in shown) + worker.output
    assert printed.count("no\\x1b[2J") >= 8
    assert not set(printed) & {"\x1b", "\x07", "\x9b", "\u202e", "\r"}
    assert not any(line.startswith("2026-01-01 ERROR") for line in printed.splitlines())


@pytest.mark.usefixtures("worker")
def test_scripts_learn_what_became_of_each_plan_that_they_cancel(cli: Cli, stub: StubExecutor) -> None:
    ended, running = submitted(cli, PLAN, LONG | {"api": "/other"})
    assert cli("result", ended).returncode == 0
    eventually(lambda: running in stub.running)
    assert told(cli("cancel", ended, running, "--json")) == [
        {"id": ended, "cancelled": False},
        {"id": running, "cancelled": True},
    ]


def test_scripts_learn_what_halt_and_resume_did(cli: Cli) -> None:
    submitted(cli, LONG, LONG | {"api": "/other"})
    stopped = {"halted": True, "cancelled": 2, "unreadable": []}
    assert told(cli("halt", "smoke", "--json")) == [stopped | {"reason": "smoke"}]
    assert told(cli("halt", "fire", "--json")) == [stopped | {"reason": "fire"}]
    assert told(cli("resume", "--json")) == [{"halted": False, "resumed": True}]
    assert told(cli("resume", "--json")) == [{"halted": False, "resumed": False}]


def test_scripts_learn_what_moving_a_breaker_did(cli: Cli) -> None:
    moves = [("open", "open"), ("open", "open"), ("disable", "disabled"), ("close", "closed")]
    moves += [("close", "closed"), ("reset", "closed")]
    found = [told(cli("breaker", command, "--json")) for command, _ in moves]
    changes = [True, False, True, True, False, True]
    assert found == [
        [{"executor": "default", "state": state, "changed": changed}]
        for (_, state), changed in zip(moves, changes, strict=True)
    ]
    [shown] = told(cli("breaker", "show", "--json"))
    assert (shown["executor"], shown["state"]) == ("default", "closed")


COMMANDS = [
    "run", "submit", "result", "status", "watch", "cancel", "halt", "resume", "release", "health", "up",
    "doctor", "conformance", "breaker show", "breaker open", "breaker close", "breaker disable",
    "breaker reset",
]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_whose_output_a_script_may_want_says_which_json_it_prints(command: str) -> None:
    done = dispatcher(*command.split(), "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "--json" in done.stdout
    assert "Print one line of JSON" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


@pytest.mark.usefixtures("worker")
def test_halt_stops_everything_until_resume(cli: Cli, stub: StubExecutor) -> None:
    submitted(cli, LONG, LONG | {"api": "/other"})
    eventually(lambda: len(stub.running) == 2)
    assert cli("halt", "smoke in the datacentre").stdout == "halted: 2 plans in flight cancelled\n"
    eventually(lambda: len(stub.stopped) == 2)
    assert "halted: smoke in the datacentre" in cli("watch", "--once").stdout
    refused = cli("submit", "-", text=json.dumps(PLAN))
    assert refused.returncode == 9
    assert "smoke in the datacentre" in refused.stderr
    assert cli("resume").stdout == "plans are taken again\n"
    assert cli("resume").stdout == "the dispatcher was not halted\n"
    assert cli("run", "-", text=json.dumps(PLAN)).returncode == 0


@pytest.mark.usefixtures("worker")
def test_watch_shows_what_is_in_flight_within_80_columns(cli: Cli, stub: StubExecutor) -> None:
    assert cli("watch", "--once").stdout == "0 plans in flight\n"
    begun = time.monotonic()
    [running_id] = submitted(cli, LONG)
    eventually(lambda: stub.running)
    [waiting_id] = submitted(cli, LONG | {"duration_seconds": 7})
    eventually(lambda: "waits for" in cli("watch").stdout)
    done = cli("watch")
    assert done.stdout.startswith("2 plans in flight\n")
    assert max(map(len, done.stdout.splitlines())) <= 80
    left_s = re.search(r"running +(\d+) s", done.stdout)
    assert left_s is not None
    assert 600 - (time.monotonic() - begun) - 1 < int(left_s[1]) <= 600
    plans = {each["id"]: each for each in map(json.loads, cli("watch", "--json").stdout.splitlines())}
    assert (plans[running_id]["state"], plans[waiting_id]["state"]) == ("running", "queued")
    cli("halt", "the end")


@pytest.mark.usefixtures("worker")
def test_watch_on_a_terminal_is_a_live_table_until_ctrl_c(redis_url: str, cli: Cli) -> None:
    [plan_id] = submitted(cli, LONG)
    environment = {"DISPATCHER_REDIS_URL": redis_url, "TERM": "xterm"}
    with Terminal([DISPATCHER, "watch"], environment) as watch:
        watch.until_seen(plan_id[:20])
        watch.send_signal(signal.SIGINT)
        assert watch.wait() == 130
    assert "Traceback" not in watch.seen
    cli("halt", "the end")


@pytest.mark.usefixtures("worker")
def test_health_says_whether_the_executor_is_up(cli: Cli, stub: StubExecutor) -> None:
    done = cli("health")
    assert done.returncode == 0
    assert done.stdout.startswith("default is healthy (checked ")
    [told_of] = told(cli("health", "--json"))
    assert (told_of["executor"], told_of["healthy"]) == ("default", True)
    done = cli("health", "--executor", "unknown")
    assert done.returncode == 2
    assert "must be one of the configured executors: default" in done.stderr


def test_no_check_is_made_without_a_worker(cli: Cli) -> None:
    done = cli("health", "--timeout-sec", "0.2")
    assert done.returncode == 7
    assert "is a worker running?" in done.stderr


@pytest.mark.usefixtures("worker")
def test_the_breaker_is_moved_by_hand_and_plans_meet_it(cli: Cli) -> None:
    assert cli("breaker", "show").stdout.startswith("default: closed")
    assert cli("breaker", "open", "--reason", "maintenance").stdout == "default is open\n"
    assert cli("breaker", "open", "--reason", "maintenance").stdout == "default was open already\n"
    refused = cli("run", "-", text=json.dumps(PLAN))
    assert refused.returncode == 17
    assert "was opened by hand (maintenance); submit it again once it is closed" in refused.stderr
    assert cli("breaker", "show").stdout.startswith("default: open by hand since ")
    assert json.loads(cli("breaker", "show", "--json").stdout)["reason"] == "maintenance"
    assert cli("breaker", "close").stdout == "default is closed\n"
    assert cli("run", "-", text=json.dumps(PLAN)).returncode == 0
    assert cli("breaker", "disable").stdout == "default is disabled\n"
    assert cli("breaker", "reset").stdout == "default is closed, and nothing is counted\n"
    assert cli("breaker", "open", "--executor", "unknown").returncode == 2


def test_the_breaker_of_a_redis_that_is_away_is_a_line() -> None:
    done = dispatcher("breaker", "show", DISPATCHER_REDIS_URL="redis://:pa55@127.0.0.1:1/0")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.count("\n") == 1
    assert "pa55" not in done.stderr


@pytest.mark.parametrize("processes", ["1", "2"])
def test_worker_starts_processes_that_carry_plans_out_and_ends_them_all(
    cli: Cli, redis_url: str, stub: StubExecutor, tmp_path: Path, processes: str
) -> None:
    mark = Mark()
    address = {"DISPATCHER_REDIS_URL": redis_url, "DISPATCHER_EXECUTORS__DEFAULT__BASE_URL": stub.url}
    command = [DISPATCHER, "worker", "--processes", processes, "--threads", "3"]
    with Process(command, tmp_path / "log", address | mark.environment) as worker:
        worker.wait_until(lambda: worker.output.count(" ready.") == int(processes))
        assert "concurrency: 3 (thread)" in worker.output
        assert "mingle" not in worker.output
        assert cli("run", "-", text=json.dumps(PLAN)).returncode == 0
        worker.stop()
    eventually(lambda: mark.running() == [])
    assert "Traceback" not in worker.output


def test_up_prints_all_addresses_for_scripts(tmp_path: Path) -> None:
    command = [WARM, "up", "--workers", "1", "--json"]
    with WarmProcess(command, tmp_path / "out", errors=tmp_path / "errors") as up:
        up.wait_until(lambda: up.output.endswith("\n"))
        is_up = json.loads(up.output)
        assert differences("up", is_up) == []
        assert {"redis", "executor", "proxy"} <= set(is_up["addresses"])
        done = dispatcher("run", "-", "--json", text=json.dumps(PLAN), **is_up["environment"])
        assert "observation" in json.loads(done.stdout)
        up.send_signal(signal.SIGTERM)
        assert up.wait() == 143
    assert json.loads(up.output) == is_up


def test_up_has_no_part_in_the_broker_of_another_system(tmp_path: Path, free_tcp_port: int) -> None:
    other = {"DISPATCHER_BROKER_URL": f"amqp://127.0.0.1:{free_tcp_port}//"}
    command = [WARM, "up", "--workers", "1", "--json"]
    with WarmProcess(command, tmp_path / "out", other, errors=tmp_path / "errors") as up:
        up.wait_until(lambda: up.output.endswith("\n"))
        environment = json.loads(up.output)["environment"]
        done = dispatcher("run", "-", "--json", text=json.dumps(PLAN), **other | environment)
        assert "observation" in json.loads(done.stdout)
        assert "without messages" not in done.stderr
        up.send_signal(signal.SIGTERM)
        assert up.wait() == 143


def test_up_runs_with_a_folder_for_temporary_files_of_any_name(tmp_path: Path) -> None:
    command = [DISPATCHER, "up", "--workers", "1"]
    with (  # a path that is short enough for Unix sockets
        tempfile.TemporaryDirectory(prefix="odd \"'\\ é") as folder,
        Process(command, tmp_path / "log", {"TMPDIR": folder}) as up,
    ):
        up.wait_until(lambda: "Ctrl-C ends it." in up.output)
        assert any(Path(folder).iterdir())
        up.send_signal(signal.SIGINT)
        assert up.wait() == 130
        assert not any(Path(folder).iterdir())


def test_up_prints_where_everything_is_and_leaves_nothing_behind(tmp_path: Path) -> None:
    mark = Mark()
    with WarmProcess([WARM, "up", "--workers", "1"], tmp_path / "log", mark.environment) as up:
        up.wait_until(lambda: "Ctrl-C ends it." in up.output)
        exports = dict(re.findall(r"export (\w+)=(\S+)", up.output))
        done = dispatcher("run", "-", text=json.dumps(PLAN), **exports)
        assert done.returncode == 0, done.stderr
        [(user, password, flower)] = re.findall(r"flower +http://(\w+):(\S+)@(\S+)", up.output)
        assert requests.get(f"http://{flower}/", timeout=60).status_code == 401
        assert requests.get(f"http://{flower}/", auth=(user, password), timeout=60).ok
        end_a_worker = f"http://{flower}/api/worker/shutdown/worker1"
        assert requests.post(end_a_worker, auth=(user, password), timeout=60).status_code == 403
        up.send_signal(signal.SIGINT)
        assert up.wait() == 130
    assert mark.running() == []
    assert "Traceback" not in up.output


@pytest.mark.usefixtures("worker")
def test_doctor_looks_at_everything_in_a_line_each(cli: Cli, stub: StubExecutor) -> None:
    address = {"DISPATCHER_EXECUTORS__DEFAULT__BASE_URL": stub.url}
    done = cli("doctor", **address)
    lines = done.stdout.splitlines()
    assert all(re.match(r"(ok|warning|error) +[^:]+: .+", line) for line in lines)
    looked_at = {line.split(": ")[0].split(maxsplit=1)[1]: line.split()[0] for line in lines}
    assert looked_at.pop("redis persistence") == "warning"  # the test's Redis keeps nothing
    [worker] = [name for name in looked_at if name.startswith("worker ")]
    assert set(looked_at) == {
        worker,
        "redis",
        "redis version",
        "redis eviction",
        "redis memory",
        "redis writes",
        "redis latency",
        "clock",
        "plans",
        "retention",
        "faults in doubt",
        "breaker of default",
        "executor default",
        "contract of default",
        "capabilities of default",
        "flower",
    }
    assert set(looked_at.values()) == {"ok"}, done.stdout
    assert done.returncode == 0
    first, *others = told(cli("doctor", "--json", **address))
    assert (first["what"], first["level"]) == ("redis", "ok")
    assert {each["what"] for each in others} == set(looked_at) - {"redis"} | {"redis persistence"}


def test_doctor_finds_an_executor_of_another_contract(cli: Cli, stub: StubExecutor) -> None:
    stub.health = (200, {"status": "healthy", "contract": "2.0"})
    done = cli("doctor", DISPATCHER_EXECUTORS__DEFAULT__BASE_URL=stub.url)
    assert f"warning  contract of default: version '2.0', but the driver's is {SPOKEN}." in done.stdout


def test_doctor_finds_what_is_not_there(cli: Cli, free_tcp_port: int) -> None:
    done = cli("doctor", DISPATCHER_EXECUTORS__DEFAULT__BASE_URL=f"http://127.0.0.1:{free_tcp_port}")
    assert done.returncode == 1
    assert "error    workers: none answers. Start one: dispatcher worker" in done.stdout
    assert re.search(r"error +executor default: GET .*: connection refused", done.stdout)
    done = dispatcher("doctor", DISPATCHER_REDIS_URL="redis://:pa55@127.0.0.1:1/0")
    assert re.match(r"error +redis: Redis at redis://127.0.0.1:1/0 did not answer", done.stdout)
    assert "pa55" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
