"""`dispatcher conformance`: the reference Executor passes all checks, and people see what fails."""

from __future__ import annotations

import json
import os
import shlex
import signal
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest
import requests
from support.command_line import WARM, dispatcher
from support.eventually import GENEROUS_S, eventually
from support.meddler import Exchange, Meddler
from support.processes import ExecutorProcess, WarmProcess
from support.redis_server import free_port
from support.service import Service

from conformance.checks import CHECKS
from conformance.reading import shown
from workers.drivers.answers import Answer

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator
    from pathlib import Path

TOKEN, LIMIT = "pa55w0rd", 120
LONG_S = 4 * GENEROUS_S
"""All checks take half a minute on a machine with nothing else to do."""

ALL = len(CHECKS) + 1
"""With the last one, that nothing is left behind."""


def check(url: str, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return dispatcher("conformance", url, *options, **environment)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[], ExecutorProcess]]:
    """Starts one Executor after the other, with one folder, in front of a service that goes on."""
    ports = "--port", str(free_port()), "--proxy-port", str(free_port())
    started: list[ExecutorProcess] = []

    def one() -> ExecutorProcess:
        log = tmp_path / f"executor-{len(started)}.log"
        more = ("--state-dir", str(tmp_path / "s"), "--max-active-faults", str(LIMIT), *ports)
        service = ("--service", f"PaymentService=127.0.0.1:{target.port}")
        executor = ExecutorProcess(log, *service, *more, traffic_rps=0, sample=False, token=TOKEN)
        started.append(executor)
        return executor

    with Service() as target:
        target.let_go.set()
        yield one
        for executor in started:
            executor.kill()
            with suppress(ProcessLookupError):
                os.kill(executor.envoy_pid, signal.SIGKILL)


@pytest.mark.lasts_long
def test_the_reference_executor_passes_all_checks(
    start: Callable[[], ExecutorProcess], tmp_path: Path
) -> None:
    first, killed, again = start(), tmp_path / "killed", tmp_path / "again"
    signal_it = f"until test -s {again}; do sleep 0.05; done; kill -%s $(cat {again})"
    options = {
        "probe": f"{first.proxy}/api/v1/pay",
        "probe-host": "PaymentService",
        "max-active-faults": str(LIMIT),
        "kill": shlex.join(["sh", "-c", f"kill -9 {first.pid}"]),
        "start": f"touch {killed}",
        "hang": shlex.join(["sh", "-c", signal_it % "STOP"]),
        "resume": shlex.join(["sh", "-c", signal_it % "CONT"]),
        "junit": str(tmp_path / "report.xml"),
    }
    command = [
        WARM,
        "conformance",
        first.url,
        "--json",
        *(f"--{name}={text}" for name, text in options.items()),
    ]
    with WarmProcess(command, tmp_path / "report", {"EXECUTOR_TOKEN": TOKEN}) as checking:
        eventually(lambda: killed.exists() or not checking.alive(), LONG_S)
        again.write_text(str(start().pid))
        eventually(lambda: not checking.alive(), LONG_S)
        code = checking.wait()
    report = json.loads(checking.output)
    others = {each["check"]: each["seen"] for each in report["checks"] if each["result"] != "passed"}
    assert others == {}
    assert (code, len(report["checks"])) == (0, ALL)
    assert TOKEN not in checking.output
    suite = ET.fromstring((tmp_path / "report.xml").read_bytes())
    counts = [suite.get(name) for name in ("tests", "failures", "skipped")]
    assert counts == [str(ALL), "0", "0"]
    assert len(suite.findall("testcase")) == ALL


def test_what_cannot_be_checked_is_skipped_with_the_reason(executor: ExecutorProcess) -> None:
    done = check(executor.url)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    header, *rows, summary = done.stdout.splitlines()
    assert header.split() == ["result", "grade", "check"]
    reasons = {row.split(maxsplit=1)[1] for row in rows if row.split()[0] == "because"}
    assert {
        "no --probe was given",
        "no --token was given",
        "no --max-active-faults was given",
        "no --kill and --start were given",
    } <= reasons
    assert "failed=0" in summary
    assert "skipped=0" not in summary
    assert summary.endswith("idempotent_apply=true stops_faults=true lists_faults=true keeps_not_after=true")


NEWER = {"requests", "faulted", "unanswered", "unfinished", "start_time", "end_time", "doubt"}


def without_extensions(exchange: Exchange) -> Exchange:
    """As an older Executor answers: it lists no faults, and counts no requests."""
    if exchange.path.removesuffix("/stop-all") == "/v1/faults":
        return replace(exchange, status=404, body=b"404 page not found")
    if not exchange.path.endswith(("/status", "/metrics")) or exchange.status != 200:
        return exchange
    fields = json.loads(exchange.body)
    return exchange.with_body(
        json.dumps({name: value for name, value in fields.items() if name not in NEWER}).encode()
    )


def test_an_executor_without_the_extensions_conforms_and_the_report_says_how_to_configure_it(
    executor: ExecutorProcess, tmp_path: Path
) -> None:
    extensions = frozenset({"idempotency-key", "not-after"})
    with Meddler(executor.url, without_extensions, keep_back=extensions, swallow={"DELETE": 405}) as bare:
        done = check(bare.url, "--junit", str(tmp_path / "report.xml"))
    assert done.returncode == 0, done.stdout
    _, *rows, summary = done.stdout.splitlines()
    failed = [row for row in rows if row.startswith("failed")]
    assert failed
    assert all(row.split()[1] == "recommended" for row in failed)
    assert "required_failed=0 idempotent_apply=false stops_faults=false" in summary
    assert summary.endswith("lists_faults=false keeps_not_after=false")
    suite = ET.fromstring((tmp_path / "report.xml").read_bytes())
    assert suite.get("failures") == "0"


def test_a_check_that_fails_says_what_was_expected_and_seen_and_what_to_do(
    executor: ExecutorProcess,
) -> None:
    def odd(exchange: Exchange) -> Exchange:
        return replace(exchange, body=b'{"status": "ok"}') if exchange.path.endswith("/apply") else exchange

    with Meddler(executor.url, odd) as meddler:
        done = check(meddler.url)
        report = json.loads(check(meddler.url, "--json").stdout)
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    row = lines.index("failed   required     an abort is applied")
    details = [line.split(maxsplit=1) for line in lines[row + 1 : row + 4]]
    assert [detail for detail, _ in details] == ["expected", "seen", "do"]
    assert details[1][1] == '200 {"status": "ok"}'
    assert "needs: an abort is applied" in done.stdout
    assert report["conforms"] is False
    [failed] = [each for each in report["checks"] if each["check"] == "an abort is applied"]
    assert (failed["result"], failed["grade"], failed["seen"]) == ("failed", "required", details[1][1])


def test_an_executor_that_is_away_breaks_no_contract(free_tcp_port: int) -> None:
    done = check(f"http://127.0.0.1:{free_tcp_port}")
    assert (done.returncode, done.stdout) == (11, "")
    assert done.stderr.startswith("error: GET http://127.0.0.1:")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("url", ["executor:8000", "ftp://executor", "http://me:pa55@executor"])
def test_an_invalid_url_is_refused(url: str) -> None:
    done = check(url)
    assert done.returncode == 2
    assert done.stderr.startswith("error: base_url: must ")
    assert "pa55" not in done.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--kill", "true"], "--start: is required with --kill"),
        (["--resume", "true"], "--hang: is required with --resume"),
        (["--kill", "'", "--start", "true"], "--kill: must be a command"),
        (["--probe", "payment:8080"], "--probe: must be a URL such as"),
    ],
    ids=["a kill without a start", "a resume without a hang", "an open quote", "a probe that is not a URL"],
)
def test_a_wrong_option_is_named(options: list[str], words: str) -> None:
    done = check("http://127.0.0.1:1", *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr


def test_ctrl_c_leaves_nothing_behind(executor: ExecutorProcess, tmp_path: Path) -> None:
    seen: list[str] = []

    def remember(exchange: Exchange) -> Exchange:
        if exchange.path == "/v1/faults/apply" and exchange.status == 200:
            seen.append(json.loads(exchange.body)["apply_id"])
        return exchange

    with (
        Meddler(executor.url, remember) as watched,
        WarmProcess([WARM, "conformance", watched.url], tmp_path / "log") as process,
    ):
        eventually(lambda: len(seen) >= 3)
        process.send_signal(signal.SIGINT)
        assert process.wait() != 0
    assert "passed   required     nothing is left behind" in process.output
    states = {_status(executor, apply_id) for apply_id in seen}
    assert states == {"completed"}


@pytest.mark.parametrize("body", [b"[" * 100_000, b"\x1b[2J", b"\xff", b""])
def test_any_answer_can_be_shown(body: bytes) -> None:
    assert shown(Answer("GET /", 200, body)).isprintable()


def _status(executor: ExecutorProcess, apply_id: str) -> str:
    answer = requests.get(f"{executor.url}/v1/faults/{apply_id}/status", timeout=60)
    return str(answer.json()["status"])
