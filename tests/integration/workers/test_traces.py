"""The spans of submissions, steps and calls, and the trace that they share."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode
from support.plans import abort_plan, plan_record
from support.spans import Spans, ids
from support.steps import Steps, make_due, take
from support.stub_executor import StubExecutor

from dispatcher import (
    Dispatcher,
    ExecutorClientConfig,
    ExecutorConnectionError,
    ExecutorRejectedError,
    InvalidPlanError,
)
from dispatcher.ledger.connection import impatient_client
from dispatcher.ledger.ledger import Ledger, Submission
from dispatcher.ledger.record import Order
from dispatcher.settings.executors import ServiceSettings
from dispatcher.tasks.app import make_celery
from dispatcher.tasks.results import ResultCodec
from dispatcher.telemetry.traces import TRACER
from workers.breaker.shared import SharedBreaker
from workers.engine.decisions import Complete, Fail, Retry, Snooze
from workers.engine.gateway import open_gateway
from workers.engine.traces import own_trace_id, step_span
from workers.local import HttpExecutorClient
from workers.observers.base import Phase

if TYPE_CHECKING:
    from collections.abc import Iterator

    import redis
    from opentelemetry.sdk.trace import ReadableSpan

    from dispatcher import RawObservation, Settings

SUBMITTED_ELSEWHERE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def stub() -> Iterator[StubExecutor]:
    with StubExecutor() as stub:
        yield stub


@pytest.fixture
def dispatcher(settings: Settings) -> Iterator[Dispatcher]:
    with Dispatcher(settings) as dispatcher:
        yield dispatcher


@pytest.fixture
def steps(settings: Settings, stub: StubExecutor) -> Iterator[Steps]:
    """What a worker does with a plan, against the stub, in this process."""
    client = impatient_client(settings)
    config = ExecutorClientConfig(base_url=stub.url)
    way = open_gateway("default", config, {}, connections=2, poll_ms=500)
    breaker = SharedBreaker(client, settings.key_prefix, "default", way.rules)
    codec = ResultCodec(make_celery(settings))
    yield Steps(client, codec, {"default": way}, {"default": breaker}, settings=settings)
    way.close()
    client.close()


def carry_out(plan_id: str, steps: Steps, stub: StubExecutor, client: redis.Redis) -> RawObservation:
    """The plan's two steps, without waiting for its fault."""
    assert isinstance(take(steps, plan_id), Snooze)
    stub.running[plan_id] = 0.0
    make_due(client, plan_id)
    decision = take(steps, plan_id)
    assert isinstance(decision, Complete)
    return decision.observation


def told(span: ReadableSpan) -> dict[str, object]:
    return dict(span.attributes or {})


def parents(stub: StubExecutor) -> list[tuple[str, str]]:
    """Trace and span that each call named, in hexadecimal."""
    found = [re.fullmatch("00-(.{32})-(.{16})-..", headers["traceparent"]) for headers in stub.headers]
    return [(match[1], match[2]) for match in found if match]


def test_one_trace_leads_from_a_recommender_to_the_executor(
    dispatcher: Dispatcher, steps: Steps, stub: StubExecutor, spans: Spans, real_redis: redis.Redis
) -> None:
    with spans.tracer.start_as_current_span("search"):
        dispatcher.submit(abort_plan(), plan_id="p1")
    observation = carry_out("p1", steps, stub, real_redis)
    trace, search, _ = ids(spans.one("search"))
    submit_trace, submit, submit_parent = ids(spans.one("submit"))
    assert (submit_trace, submit_parent) == (trace, search)
    first, last = map(ids, spans.named("step"))
    assert first[::2] == last[::2] == (trace, submit)
    calls = [ids(span) for name in ("POST", "GET") for span in spans.named(name)]
    assert [call[::2] for call in calls] == [(trace, first[1]), (trace, last[1]), (trace, last[1])]
    assert parents(stub) == [call[:2] for call in calls]
    assert observation.trace_id == trace


def test_spans_say_what_they_are_about(
    dispatcher: Dispatcher, steps: Steps, stub: StubExecutor, spans: Spans, real_redis: redis.Redis
) -> None:
    dispatcher.submit(abort_plan(), plan_id="p1")
    carry_out("p1", steps, stub, real_redis)
    plan = {
        "dispatcher.plan_id": "p1",
        "dispatcher.executor": "default",
        "dispatcher.service": "PaymentService",
        "dispatcher.api": "/api/v1/payment/process",
        "dispatcher.fault_type": "abort",
    }
    submit, (first, last), [apply] = spans.one("submit"), spans.named("step"), spans.named("POST")
    assert (submit.kind, told(submit)) == (SpanKind.PRODUCER, plan)
    step = plan | {"dispatcher.apply_id": "p1", "dispatcher.attempt": 1}
    assert (first.kind, told(first)) == (SpanKind.CONSUMER, step | {"dispatcher.decision": "snooze"})
    assert told(last) == step | {"dispatcher.decision": "complete"}
    assert apply.kind is SpanKind.CLIENT
    assert told(apply) == {
        "http.request.method": "POST",
        "url.full": f"{stub.url}/v1/faults/apply",
        "server.address": "127.0.0.1",
        "server.port": stub.port,
        "http.response.status_code": 200,
    }
    assert {span.status.status_code for span in spans.all()} == {StatusCode.UNSET}


def test_a_batch_is_submitted_by_one_span(
    dispatcher: Dispatcher, spans: Spans, real_redis: redis.Redis, settings: Settings
) -> None:
    batch = dispatcher.submit_many(abort_plan(api=f"/{number}") for number in range(3))
    submit = spans.one("submit")
    assert told(submit) == {
        "dispatcher.batch": batch.id,
        "dispatcher.executor": "default",
        "dispatcher.plans": 3,
    }
    records = Ledger(real_redis, settings).read([handle.id for handle in batch])
    trace, span, _ = ids(submit)
    assert {record.traceparent[:52] for record in records if record} == {f"00-{trace}-{span}"}


def test_a_refused_plan_fails_its_span(dispatcher: Dispatcher, spans: Spans) -> None:
    with pytest.raises(InvalidPlanError):
        dispatcher.submit(abort_plan(), executor="unknown")
    assert spans.one("submit").status.status_code is StatusCode.ERROR


def test_an_answer_that_is_an_error_fails_its_call_and_its_step(
    dispatcher: Dispatcher, steps: Steps, stub: StubExecutor, spans: Spans
) -> None:
    dispatcher.submit(abort_plan(), plan_id="p1")
    stub.answers.append((503, {}))
    assert isinstance(take(steps, "p1"), Retry)
    call, step = spans.one("POST"), spans.one("step")
    assert (told(call)["http.response.status_code"], told(call)["error.type"]) == (503, "503")
    assert told(step)["error.type"] == "ExecutorServerError"
    assert told(step)["dispatcher.decision"] == "retry"
    assert {span.status.status_code for span in (call, step)} == {StatusCode.ERROR}
    assert "503 service unavailable" in str(step.status.description)


def test_a_call_without_an_answer_says_why(
    dispatcher: Dispatcher, steps: Steps, stub: StubExecutor, spans: Spans
) -> None:
    dispatcher.submit(abort_plan(), plan_id="p1")
    stub.__exit__()
    assert isinstance(take(steps, "p1"), Retry)
    call = spans.one("POST")
    assert told(call)["error.type"] == ExecutorConnectionError.__name__
    assert "connection refused" in str(call.status.description)
    assert "http.response.status_code" not in told(call)
    assert call.events == ()  # no tracebacks: the error says it all


def test_a_plan_that_fails_says_so(
    dispatcher: Dispatcher, steps: Steps, stub: StubExecutor, spans: Spans
) -> None:
    dispatcher.submit(abort_plan(), plan_id="p1")
    stub.answers.append((401, {"message": "who are you?"}))
    assert isinstance(take(steps, "p1"), Fail)
    step = spans.one("step")
    assert (told(step)["dispatcher.decision"], step.status.status_code) == ("fail", StatusCode.ERROR)
    assert told(step)["error.type"] == ExecutorRejectedError.__name__


def test_a_plan_for_an_executor_that_the_worker_does_not_know_says_so_too(
    steps: Steps, spans: Spans, real_redis: redis.Redis, settings: Settings
) -> None:
    order = Order(plan=abort_plan(), executor="elsewhere", timeout_ms=30_000)
    Ledger(real_redis, settings).submit([Submission("p1", order)])
    assert isinstance(take(steps, "p1"), Fail)
    step = spans.one("step")
    assert (told(step)["dispatcher.decision"], step.status.status_code) == ("fail", StatusCode.ERROR)


def test_without_an_sdk_the_executor_sees_the_plans_own_trace(
    dispatcher: Dispatcher, steps: Steps, stub: StubExecutor, real_redis: redis.Redis
) -> None:
    dispatcher.submit(abort_plan(), plan_id="p1")
    observation = carry_out("p1", steps, stub, real_redis)
    assert {trace for trace, _ in parents(stub)} == {observation.trace_id} == {f"{own_trace_id('p1'):032x}"}


def test_an_sdk_only_at_the_worker_has_all_of_a_plans_steps_in_that_trace(
    dispatcher: Dispatcher, steps: Steps, stub: StubExecutor, real_redis: redis.Redis, spans: Spans
) -> None:
    with pytest.MonkeyPatch.context() as without:
        without.setattr(TRACER, "_real_tracer", None)
        dispatcher.submit(abort_plan(), plan_id="p1")
    observation = carry_out("p1", steps, stub, real_redis)
    assert {ids(span)[0] for span in spans.all()} == {observation.trace_id} == {f"{own_trace_id('p1'):032x}"}


@pytest.mark.parametrize("broken", ["", "what?", "00-" + "0" * 32 + "-b7ad6b7169203331-01"])
def test_an_invalid_traceparent_counts_as_absent(broken: str, spans: Spans) -> None:
    with step_span(plan_record("p1", traceparent=broken)):
        pass
    assert ids(spans.one("step"))[0] == f"{own_trace_id('p1'):032x}"


def test_a_worker_without_an_sdk_passes_the_submitters_span_on(steps: Steps, stub: StubExecutor) -> None:
    record = plan_record("p1", traceparent=SUBMITTED_ELSEWHERE)
    [way] = steps.gateways.values()
    with step_span(record):
        way.driver.apply(record.plan, "p1", 5.0, datetime(2100, 1, 1, tzinfo=UTC))
    assert [headers["traceparent"] for headers in stub.headers] == [SUBMITTED_ELSEWHERE]


def test_who_samples_nothing_has_nothing_recorded_and_says_so(
    dispatcher: Dispatcher, steps: Steps, stub: StubExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = Spans(ALWAYS_OFF)
    monkeypatch.setattr(TRACER, "_real_tracer", nothing.tracer)
    dispatcher.submit(abort_plan(), plan_id="p1")
    assert isinstance(take(steps, "p1"), Snooze)
    [headers] = stub.headers
    assert int(headers["traceparent"][-2:], 16) & 1 == 0
    assert nothing.all() == []


def test_the_client_without_a_queue_has_one_trace_too(stub: StubExecutor, spans: Spans) -> None:
    with HttpExecutorClient(ExecutorClientConfig(base_url=stub.url)) as direct:
        observation = direct.apply_and_observe(abort_plan())
    trace, whole, parent = ids(spans.one("apply_and_observe"))
    assert (parent, observation.trace_id) == (None, trace)
    assert {ids(step)[::2] for step in spans.named("step")} == {(trace, whole)}
    assert {named for named, _ in parents(stub)} == {trace}


def test_it_has_one_without_an_sdk_as_well(stub: StubExecutor) -> None:
    with HttpExecutorClient(ExecutorClientConfig(base_url=stub.url)) as direct:
        observation = direct.apply_and_observe(abort_plan())
    assert {named for named, _ in parents(stub)} == {observation.trace_id}


def test_probes_of_the_target_are_part_of_the_trace(stub: StubExecutor, spans: Spans) -> None:
    config = {"base_url": stub.url, "observer": {"kind": "probe", "requests_per_sec": 2}}
    services = {"PaymentService": ServiceSettings(base_url=stub.url)}
    stub.answers.extend([(200, {})] * 2)
    way = open_gateway(
        "default", ExecutorClientConfig.model_validate(config), services, connections=2, poll_ms=1
    )
    assert way.observer is not None
    record = plan_record("p1")
    with step_span(record):
        way.observer.sample(record, Phase.BEFORE, 1000, 5.0)
    way.close()
    assert {ids(span)[::2] for span in spans.named("GET")} == {
        (f"{own_trace_id('p1'):032x}", ids(spans.one("step"))[1])
    }
    assert len(spans.named("GET")) == 2
