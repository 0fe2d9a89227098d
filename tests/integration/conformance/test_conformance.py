"""The conformance check: the reference Executor passes it, and defective ones are found out."""

from __future__ import annotations

import json
import re
import signal
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest
import requests
from support.command_line import WARM, dispatcher
from support.eventually import eventually
from support.meddler import Exchange, Meddler
from support.processes import ExecutorProcess, WarmProcess

from conformance.cases import CASES
from conformance.report import Verdict
from conformance.run import LAST, try_case
from conformance.subject import Subject, shown
from dispatcher.settings.executors import Endpoint
from workers.drivers.answers import Answer
from workers.drivers.transport import HttpTransport

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path


def check(url: str, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return dispatcher("conformance", url, *options, **environment)


def test_the_reference_executor_passes_it_all(executor: ExecutorProcess, tmp_path: Path) -> None:
    junit = tmp_path / "report.xml"
    done = check(executor.url, "--junit", str(junit))
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    *lines, summary = done.stdout.splitlines()
    assert summary == (
        "conformance: cases=45 ok=44 without=1 violated=0 idempotent_apply=true stops_faults=true "
        "lists_faults=true keeps_not_after=true"
    )
    assert len(lines) == 45
    assert all(re.match(r"(ok|without) +[^:]+: expected .+; got .+", line) for line in lines)
    suite = ET.fromstring(junit.read_bytes())
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("45", "0", "1")
    assert len(suite.findall("testcase")) == 45


def test_with_its_token_it_passes_too_and_the_token_is_not_shown(tmp_path: Path) -> None:
    with ExecutorProcess(tmp_path / "executor.log", traffic_rps=0, token="pa55w0rd") as guarded:
        assert check(guarded.url).returncode == 1
        done = check(guarded.url, "--json", EXECUTOR_TOKEN="pa55w0rd")
    report = json.loads(done.stdout)
    assert done.returncode == 0
    assert {each["verdict"] for each in report["cases"]} == {"ok"}
    assert "pa55w0rd" not in done.stdout + done.stderr


def test_an_executor_without_the_extensions_passes_and_the_report_says_how_to_configure_it(
    executor: ExecutorProcess,
) -> None:
    extensions = frozenset({"idempotency-key", "not-after"})
    bare = Meddler(executor.url, without_extensions, keep_back=extensions, swallow={"DELETE": 405})
    with bare:
        done = check(bare.url)
    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines()[-1] == (
        "conformance: cases=45 ok=33 without=12 violated=0 idempotent_apply=false stops_faults=false "
        "lists_faults=false keeps_not_after=false"
    )


NEWER = {"requests", "faulted", "unanswered", "unfinished", "start_time", "end_time"}


def without_extensions(exchange: Exchange) -> Exchange:
    """As an older Executor answers: it lists no faults, and counts no requests."""
    if exchange.path == "/v1/faults":
        return replace(exchange, status=404, body=b"404 page not found")
    if not exchange.path.endswith(("/status", "/metrics")) or exchange.status != 200:
        return exchange
    fields = json.loads(exchange.body)
    return exchange.with_body(
        json.dumps({name: value for name, value in fields.items() if name not in NEWER}).encode()
    )


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
    assert "nothing is left behind: expected no fault still running; got" in process.output
    states = {_status(executor, apply_id) for apply_id in seen}
    assert states == {"completed"}


@pytest.mark.parametrize("body", [b"[" * 100_000, b"\x1b[2J", b"\xff", b""])
def test_any_answer_can_be_shown(body: bytes) -> None:
    assert shown(Answer("GET /", 200, body)).isprintable()


def _status(executor: ExecutorProcess, apply_id: str) -> str:
    answer = requests.get(f"{executor.url}/v1/faults/{apply_id}/status", timeout=60)
    return str(answer.json()["status"])


@dataclass(frozen=True)
class Defect:
    """What is wrong with an Executor, and by which case it is found out."""

    case: str
    part: str
    """End of the path whose answers are wrong."""

    change: Callable[[Exchange], Exchange]
    verdict: Verdict = Verdict.VIOLATED

    def meddle(self, exchange: Exchange) -> Exchange:
        return self.change(exchange) if exchange.path.endswith(self.part) else exchange


def answers(status: int, body: bytes = b"{}") -> Callable[[Exchange], Exchange]:
    return lambda exchange: replace(exchange, status=status, body=body)


def says(**fields: object) -> Callable[[Exchange], Exchange]:
    """The same answer with other fields. `...` takes one away."""

    def change(exchange: Exchange) -> Exchange:
        if exchange.status != 200:
            return exchange
        changed = {
            name: value for name, value in (json.loads(exchange.body) | fields).items() if value is not ...
        }
        return exchange.with_body(json.dumps(changed).encode())

    return change


def stops_say(**fields: object) -> Callable[[Exchange], Exchange]:
    """As `says`, only in answers to stops."""
    return lambda exchange: says(**fields)(exchange) if exchange.method == "DELETE" else exchange


DEFECTS = [
    Defect("the executor is healthy", "/health", answers(503)),
    Defect("the executor is healthy", "/health", says(contract="2.0")),
    Defect("the executor is healthy", "/health", says(contract="one")),
    Defect("an abort is applied", "/apply", says(status="ok")),
    Defect("an abort is applied", "/apply", says(apply_id="")),
    Defect("an abort is applied", "/apply", answers(202, b"[]")),
    Defect("a delay is applied", "/apply", says(status="failed")),
    Defect("a start delay is taken", "/apply", answers(400)),
    Defect("percentages from 0 to 100 are taken", "/apply", answers(500)),
    Defect("a traceparent is taken", "/apply", answers(431)),
    Defect("each fault has an id of its own", "/apply", says(apply_id="f-1")),
    Defect("each fault has an id of its own", "/apply", says(apply_id="x" * 201)),
    Defect("an applied fault is running", "/status", says(status="active")),
    Defect("an applied fault is running", "/status", says(apply_id="f-other")),
    Defect("a status says when a fault began and ended", "/status", says(start_time="yesterday")),
    Defect("a status says when a fault began and ended", "/status", says(end_time="2026-01-01T00:00:00")),
    Defect("a status says when a fault began and ended", "/status", says(start_time="2026-01-01T00:00:00Z")),
    Defect("a status says when a fault began and ended", "/status", says(end_time=...), Verdict.WITHOUT),
    Defect("a fault ends by itself", "/status", says(status="completed")),
    Defect("a fault ends by itself", "/status", says(status="running")),
    Defect("a completed fault has metrics", "/metrics", says(error_rate=1.5)),
    Defect("a completed fault has metrics", "/metrics", says(status_code="200")),
    Defect("a completed fault has metrics", "/metrics", says(latency_ms="none")),
    Defect("a completed fault has metrics", "/metrics", says(latency_ms=None), Verdict.OK),
    Defect("metrics count requests", "/metrics", says(requests=1, faulted=2)),
    Defect("metrics count requests", "/metrics", says(requests=...), Verdict.WITHOUT),
    Defect("running faults are listed", "/faults", says(faults=[])),
    Defect("running faults are listed", "/faults", says(faults=[{"apply_id": 7}])),
    Defect("running faults are listed", "/faults", answers(405), Verdict.WITHOUT),
    Defect("an apply that comes too late begins nothing", "/apply", answers(400)),
    Defect("a stop says that the fault is over", "", stops_say(status="running"), Verdict.WITHOUT),
    Defect("a completed fault has metrics", "/metrics", says(trace_data=...)),
    Defect("a completed fault has metrics", "/metrics", says(logs=[1])),
    Defect("a completed fault has metrics", "/metrics", says(apply_id="f-other")),
    Defect("an unknown fault is not found", "/status", answers(200)),
    Defect("an unknown fault is not found", "/metrics", answers(500)),
    Defect("an unknown path is not found", "/no-such-path", answers(200)),
    Defect("a refusal says why", "/apply", answers(400, b'{"code": 7}')),
    Defect("a refusal says why", "/apply", answers(400, b"bad request")),
    Defect("a fault can be stopped", "", says(status="running")),
    Defect("a percentage of 101 is refused", "/apply", answers(500)),
    Defect("a body that is not JSON is refused", "/apply", answers(200)),
]


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.case)
def test_a_defect_is_found_by_its_case(executor: ExecutorProcess, defect: Defect) -> None:
    case = next(each for each in CASES if each.name == defect.case)
    with Meddler(executor.url, defect.meddle) as meddler:
        transport = HttpTransport(Endpoint(base_url=meddler.url), 8)
        subject = Subject(transport, transport, has_token=False, service="OrderService", prefix="/conf")
        finding = try_case(case, subject)
        transport.close()
    upstream = HttpTransport(Endpoint(base_url=executor.url), 8)
    replace_transport(subject, upstream).clean_up()
    upstream.close()
    assert finding.verdict is defect.verdict, finding


def _taken_for_the_first() -> Callable[[Exchange], Exchange]:
    """A key that was used before is not noticed."""
    first: list[bytes] = []

    def change(exchange: Exchange) -> Exchange:
        if exchange.status == 200:
            first.append(exchange.body)
        return replace(exchange, status=200, body=first[-1]) if exchange.status == 422 else exchange

    return change


def test_a_key_that_is_taken_for_another_fault_is_found(executor: ExecutorProcess) -> None:
    case = next(each for each in CASES if each.name == "a key of another fault is refused")
    with Meddler(executor.url, _taken_for_the_first()) as meddler:
        transport = HttpTransport(Endpoint(base_url=meddler.url), 8)
        subject = Subject(transport, transport, has_token=False, service="OrderService", prefix="/conf")
        finding = try_case(case, subject)
        subject.clean_up()
        transport.close()
    assert finding.verdict is Verdict.VIOLATED


def replace_transport(subject: Subject, transport: HttpTransport) -> Subject:
    subject.transport = transport
    return subject


def test_a_fault_that_is_left_behind_is_a_violation(executor: ExecutorProcess) -> None:
    forever = Defect("", "/status", says(status="running"))
    with Meddler(executor.url, forever.meddle) as meddler:
        transport = HttpTransport(Endpoint(base_url=meddler.url), 8)
        subject = Subject(transport, transport, has_token=False, service="OrderService", prefix="/conf")
        subject.applied()
        finding = try_case(LAST, subject)
        transport.close()
    assert finding.verdict is Verdict.VIOLATED
    assert finding.got == "1 faults, 1 of them still running"
