"""One trace from `submit` through queue and worker to the Executor, as a collector sees it."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest
from support.collector import Collector
from support.command_line import dispatcher as command
from support.eventually import eventually
from support.plans import abort_plan
from support.spans import ids

from workers.engine.traces import own_trace_id

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.collector import Span
    from support.processes import Workers
    from support.spans import Spans
    from support.stub_executor import StubExecutor

    from dispatcher import Dispatcher

EXPORTERS_WAIT_S = 10.0
"""By default, for a collector that is not there (OTEL_EXPORTER_OTLP_TIMEOUT)."""

QUICK = {"DISPATCHER_EXECUTORS__DEFAULT__INITIAL_RETRY_DELAY_SEC": "0.05"}
PLAN = abort_plan().model_dump_json(exclude_none=True)


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        yield collector


@pytest.fixture
def exporting(collector: Collector) -> dict[str, str]:
    """What has a process send its spans there."""
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "50"}


def of_trace(collector: Collector, trace_id: str) -> list[Span]:
    """Its spans, once the step is there that has the observation."""

    def spans() -> list[Span]:
        return [span for span in collector.spans if span.trace_id == trace_id]

    eventually(lambda: any(span.attributes.get("dispatcher.decision") == "complete" for span in spans()))
    return spans()


def test_one_trace_leads_from_the_command_line_to_the_executor(
    start: Workers, stub: StubExecutor, collector: Collector, exporting: dict[str, str], redis_url: str
) -> None:
    start(stub.url, **QUICK, **exporting)
    stub.answers.append((503, {}))
    done = command("run", "-", "--json", text=PLAN, DISPATCHER_REDIS_URL=redis_url, **exporting)
    assert (done.returncode, done.stderr) == (0, "")
    trace_id = json.loads(done.stdout)["observation"]["trace_id"]
    spans = of_trace(collector, trace_id)
    kinds = [(span.service, span.kind, span.name) for span in spans]
    assert kinds.count(("fault-dispatcher", "producer", "submit")) == 1
    assert kinds.count(("fault-dispatcher-worker", "consumer", "step")) == 3
    assert kinds.count(("fault-dispatcher-worker", "client", "POST")) == 2
    assert kinds.count(("fault-dispatcher-worker", "client", "GET")) == 2
    assert len(kinds) == 8
    named = {(headers["traceparent"][3:35], headers["traceparent"][36:52]) for headers in stub.headers}
    assert named == {(trace_id, span.span_id) for span in spans if span.kind == "client"}
    [submit] = [span for span in spans if span.name == "submit"]
    steps = {span.span_id: span for span in spans if span.name == "step"}
    assert {span.parent_id for span in steps.values()} == {submit.span_id}
    assert {span.parent_id for span in spans if span.kind == "client"} == set(steps)
    assert [span.attributes["dispatcher.decision"] for span in steps.values()] == [
        "retry",
        "snooze",
        "complete",
    ]
    assert [span.failed for span in steps.values()] == [True, False, False]


def test_a_recommenders_own_span_is_the_parent(
    dispatcher: Dispatcher,
    start: Workers,
    stub: StubExecutor,
    collector: Collector,
    exporting: dict[str, str],
    spans: Spans,
) -> None:
    start(stub.url, **exporting)
    with spans.tracer.start_as_current_span("search"):
        observation = dispatcher.submit(abort_plan()).result(60)
    trace_id, search, _ = ids(spans.one("search"))
    assert observation.trace_id == trace_id
    assert ids(spans.one("submit"))[::2] == (trace_id, search)
    steps = [span for span in of_trace(collector, trace_id) if span.name == "step"]
    assert {span.parent_id for span in steps} == {ids(spans.one("submit"))[1]}


def test_a_plan_has_a_trace_even_if_no_process_exports_any(
    dispatcher: Dispatcher, start: Workers, stub: StubExecutor
) -> None:
    start(stub.url)
    handle = dispatcher.submit(abort_plan())
    own = f"{own_trace_id(handle.id):032x}"
    assert handle.result(60).trace_id == own
    assert {headers["traceparent"][3:35] for headers in stub.headers} == {own}


def test_a_worker_that_must_end_sends_its_last_spans(
    dispatcher: Dispatcher, start: Workers, stub: StubExecutor, collector: Collector
) -> None:
    worker = start(stub.url, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, OTEL_BSP_SCHEDULE_DELAY="60000")
    dispatcher.submit(abort_plan()).result(60)
    assert collector.spans == []
    assert worker.stop() == 0
    assert len(collector.named("step")) == 2


def test_a_collector_that_is_down_delays_nothing_and_is_reported_once(
    dispatcher: Dispatcher,
    start: Workers,
    stub: StubExecutor,
    collector: Collector,
    exporting: dict[str, str],
    redis_url: str,
) -> None:
    collector.status = 400
    worker = start(stub.url, **exporting)
    for number in range(3):
        asked = len(collector.headers)
        dispatcher.submit(abort_plan(api=f"/{number}")).result(60)
        eventually(lambda: len(collector.headers) > asked)  # noqa: B023 (called right here)
    done = command("run", "-", text=PLAN, DISPATCHER_REDIS_URL=redis_url, **exporting)
    away = f"the collector at {collector.url} takes no traces, and spans are lost"
    assert (done.returncode, done.stderr.splitlines()) == (0, [f"WARNING {away}"])
    collector.status = 200
    dispatcher.submit(abort_plan(api="/again")).result(60)
    eventually(lambda: "takes traces again" in worker.output)
    assert worker.output.count(away) == 1
    assert "Traceback" not in worker.output


def test_a_collector_that_is_not_there_costs_a_command_a_second(
    start: Workers, stub: StubExecutor, redis_url: str, free_tcp_port: int
) -> None:
    start(stub.url)
    nowhere = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{free_tcp_port}"}
    took_s = []
    for environment in ({}, nowhere):
        begun = time.monotonic()
        done = command("run", "-", text=PLAN, DISPATCHER_REDIS_URL=redis_url, **environment)
        took_s.append(time.monotonic() - begun)
        assert done.returncode == 0
    assert done.stderr == "WARNING the last spans are lost: no collector took them within 1 s\n"
    assert took_s[1] < took_s[0] + EXPORTERS_WAIT_S
