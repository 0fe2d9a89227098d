"""The Prometheus observer against a real Prometheus that scrapes a service of the test's own."""

from __future__ import annotations

import time
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest
from support.eventually import eventually
from support.loopback import LoopbackServer
from support.plans import abort_plan, delay_plan, plan_record
from support.prometheus import Prometheus
from support.stub_executor import StubExecutor

from dispatcher import (
    ExecutorConnectionError,
    ExecutorProtocolError,
    ExecutorRejectedError,
    FaultUnobservedError,
    MetricsNotReadyError,
)
from dispatcher.observations import Doubt
from dispatcher.settings.executors import PrometheusSettings
from workers.observers.base import Phase
from workers.observers.prometheus import PrometheusObserver

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.loopback import Answer

    from dispatcher import FaultPlan, RawObservation
    from dispatcher.ledger.record import PlanRecord

SCRAPES = """
global: {{scrape_interval: 200ms}}
scrape_configs:
  - job_name: services
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""
REQUESTS = 'sum(increase(requests_total{service="{service}", api="{api}"}[{seconds}s]))'
ERRORS = REQUESTS.replace('"}[', '", code=~"[45].."}[')
SECONDS = REQUESTS.replace("requests_total", "seconds_sum")
QUERIES = {
    "error_rate_query": f"{ERRORS} / {REQUESTS}",
    "latency_query": f"1000 * {SECONDS} / {REQUESTS}",
    "status_query": REQUESTS.replace("sum(", "sum by (code) ("),
}
PLAN = abort_plan(service="PaymentService", api='/pay("odd")', duration_seconds=3)


class Exporter(LoopbackServer):
    """A service's metrics, as its client library would show them."""

    def __init__(self) -> None:
        self.requests: Counter[int] = Counter()
        self.seconds = 0.0
        self.scrapes = 0

    def answer_bytes(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        self.scrapes += 1
        where = 'service="PaymentService",api="/pay(\\"odd\\")"'
        lines = [f'requests_total{{{where},code="{code}"}} {n}' for code, n in self.requests.items()]
        text = "\n".join([*lines, f"seconds_sum{{{where}}} {self.seconds}", ""])
        return 200, text.encode(), "text/plain; version=0.0.4"


@pytest.fixture(scope="module")
def exporter() -> Iterator[Exporter]:
    with Exporter() as exporter:
        exporter.requests.update({200: 0, 503: 0})
        yield exporter


@pytest.fixture(scope="module")
def prometheus(exporter: Exporter, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Its URL."""
    process = Prometheus(tmp_path_factory.mktemp("prometheus"), SCRAPES.format(port=exporter.port))
    yield process.url
    process.stop()


def observer(url: str, **changes: object) -> PrometheusObserver:
    fields = {"kind": "prometheus", "base_url": url, "scrape_interval_sec": 0.0} | QUERIES | changes
    return PrometheusObserver(PrometheusSettings.model_validate(fields), connections=1)


def over(plan: FaultPlan, **changes: Any) -> PlanRecord:
    """The record of a plan whose fault is just over."""
    now_ms = round(time.time() * 1000)
    record = plan_record("p1", plan=plan, submitted_ms=now_ms, due_ms=now_ms)
    return record.applied("f1", now_ms - plan.duration_seconds * 1000).completed()._replace(**changes)


def observed(asking: PrometheusObserver, record: PlanRecord) -> RawObservation:
    """At the end of the fault."""
    return asking.observation(record, record.planned_end_ms or 0, 5)


def scraped(exporter: Exporter, times: int = 3) -> None:
    scrapes = exporter.scrapes
    eventually(lambda: exporter.scrapes >= scrapes + times)


def answers(*values: object, **more: object) -> list[tuple[int, object]]:
    """Instant vectors of one sample each, as Prometheus writes them."""
    return [
        (200, {"data": {"result": [{"metric": {}, "value": [0, str(value)]}]}} | more) for value in values
    ]


def test_the_queries_say_what_was_observed(exporter: Exporter, prometheus: str) -> None:
    scraped(exporter, 2)
    exporter.requests.update({503: 75, 200: 25})
    exporter.seconds += 20.0
    scraped(exporter)
    long = PLAN.model_copy(update={"duration_seconds": 60})  # a busy machine may have few scrapes in 3 s
    record = over(long)
    observation = observed(observer(prometheus, requests_query=REQUESTS), record)
    assert observation.execution_id == "f1"
    assert observation.error_rate == pytest.approx(0.75)
    assert observation.latency_ms == pytest.approx(200.0)
    assert observation.status_code == 503
    assert observation.requests is not None
    assert observation.error_rate_low is not None
    assert observation.requests >= 100
    assert 0.6 < observation.error_rate_low < 0.75
    assert (observation.faulted, observation.unanswered, observation.doubts) == (None, None, ())
    assert observation.started_at is not None
    assert observation.ended_at is not None
    window = (observation.started_at.timestamp() * 1000, observation.ended_at.timestamp() * 1000)
    assert window == (record.in_force_ms, record.planned_end_ms)


def test_a_regular_expression_matches_only_the_api(exporter: Exporter, prometheus: str) -> None:
    exporter.requests.update({503: 1, 200: 1})
    scraped(exporter)
    count = "count(requests_total{service=~\"{service_regex}\", api=~'{api_regex}'}) / 10"
    assert observed(observer(prometheus, error_rate_query=count), over(PLAN)).error_rate == 0.2
    other = abort_plan(service="PaymentService", api="/pay(.odd.)", duration_seconds=3)
    with pytest.raises(FaultUnobservedError, match="0 samples"):
        observed(observer(prometheus, error_rate_query=count), over(other))


def test_prometheus_looks_by_itself(prometheus: str) -> None:
    asking = observer(prometheus)
    assert asking.every_s is None
    assert asking.sample(over(PLAN), Phase.DURING, 0, 5) == ""
    assert asking.settled(over(PLAN), 0)


def test_a_target_of_which_prometheus_knows_nothing_was_not_observed(prometheus: str) -> None:
    problem = r"error_rate_query of \[executors.default.observer\] gave 0 samples and not one"
    with pytest.raises(FaultUnobservedError, match=problem) as caught:
        observed(observer(prometheus), over(abort_plan(service="UnknownService")))
    assert type(caught.value) is FaultUnobservedError  # others could not be stored


def test_a_query_that_gives_no_number_gives_no_observation(prometheus: str) -> None:
    with pytest.raises(FaultUnobservedError, match=r"error_rate_query .* gave nan"):
        observed(observer(prometheus, error_rate_query="vector(0) / vector(0)"), over(PLAN))


def test_a_query_that_gives_several_numbers_gives_no_observation(exporter: Exporter, prometheus: str) -> None:
    exporter.requests.update({503: 1, 200: 1})
    scraped(exporter)
    with pytest.raises(FaultUnobservedError, match="2 samples and not one"):
        observed(observer(prometheus, error_rate_query="requests_total"), over(PLAN))


def test_a_query_that_prometheus_does_not_understand_is_named_with_its_answer(prometheus: str) -> None:
    problem = "latency_query of .* was refused by Prometheus: .*parse error"
    with pytest.raises(ExecutorRejectedError, match=problem):
        observed(observer(prometheus, error_rate_query="vector(0)", latency_query="sum("), over(PLAN))


def test_an_answer_that_is_not_a_vector_is_a_protocol_error(prometheus: str) -> None:
    with pytest.raises(ExecutorProtocolError, match=r"error_rate_query .*not an instant vector"):
        observed(observer(prometheus, error_rate_query="1"), over(PLAN))


def test_a_prometheus_that_is_away_is_said_to_be(free_tcp_port: int) -> None:
    with pytest.raises(ExecutorConnectionError, match=r"error_rate_query .*api/v1/query"):
        observed(observer(f"http://127.0.0.1:{free_tcp_port}"), over(PLAN))


def test_it_is_asked_once_the_last_scrape_was_surely_made(prometheus: str) -> None:
    asking, record = observer(prometheus, scrape_interval_sec=15), over(PLAN)
    with pytest.raises(MetricsNotReadyError, match=r"ask again in 0\.1 s"):
        asking.observation(record, (record.planned_end_ms or 0) + 14_900, 5)
    with pytest.raises(FaultUnobservedError, match="gave nan"):
        observer(prometheus, scrape_interval_sec=15, error_rate_query="vector(NaN)").observation(
            record, (record.planned_end_ms or 0) + 15_000, 5
        )


@pytest.mark.parametrize(
    ("values", "named"),
    [
        (["1.5"], "error_rate_query .* gave 1.5"),
        (["-0.1"], "error_rate_query .* gave -0.1"),
        (["0", "3", "-2"], "latency_query .* gave -2"),
        (["0", "-1"], "requests_query .* gave -1"),
        (["0", "1e200"], "requests_query .* gave 1e\\+200"),
        (["+Inf"], "error_rate_query .* gave inf"),
        (["0", "3", "+Inf"], "latency_query .* gave inf"),
        (["NaN"], "error_rate_query .* gave nan"),
    ],
    ids=[
        "an error rate above 1",
        "an error rate below 0",
        "a latency below 0",
        "a number of requests below 0",
        "a huge number of requests",
        "an endless error rate",
        "an endless latency",
        "no error rate",
    ],
)
def test_a_figure_that_cannot_be_is_an_error_and_is_never_clamped(values: list[str], named: str) -> None:
    with StubExecutor() as stub:
        stub.answers.extend(answers(*values))
        with pytest.raises(FaultUnobservedError, match=named):
            observed(observer(stub.url, requests_query="r"), over(PLAN))


def test_what_no_query_asks_for_is_absent_and_in_doubt() -> None:
    with StubExecutor() as stub:
        stub.answers.extend(answers("1.0000000000000002", 40))
        observation = observed(observer(stub.url, status_query=None), over(PLAN))
    assert (observation.error_rate, observation.latency_ms) == (1.0, 40.0)
    absent = (observation.requests, observation.status_code, observation.latency_p95_ms, observation.baseline)
    assert absent == (None, None, None, None)
    assert observation.doubts == (Doubt.COUNT_UNKNOWN,)


def test_figures_of_a_plan_with_headers_may_include_other_requests_and_say_so() -> None:
    with StubExecutor() as stub:
        stub.answers.extend(answers("0.3", 40, 503, 100))
        plan = PLAN.with_headers({"x-test-run": "42"})
        observation = observed(observer(stub.url, requests_query="r"), over(plan))
    assert observation.doubts == (Doubt.DILUTED,)


def test_percentiles_are_asked_for_if_there_are_queries() -> None:
    percentiles = {f"latency_p{each}_query": f"p{each}" for each in (50, 95, 99)}
    with StubExecutor() as stub:
        stub.answers.extend(answers(0, 40, 503, 10, 20, 30))
        observation = observed(observer(stub.url, **percentiles), over(PLAN))
    seen = (observation.latency_p50_ms, observation.latency_p95_ms, observation.latency_p99_ms)
    assert seen == (10.0, 20.0, 30.0)


def test_percentiles_that_do_not_rise_are_an_error() -> None:
    percentiles = {f"latency_p{each}_query": f"p{each}" for each in (50, 99)}
    with StubExecutor() as stub:
        stub.answers.extend(answers(0, 40, 503, 10, 0.02))
        with pytest.raises(FaultUnobservedError, match=r"p50_query .* gave 10, and latency_p99_query only"):
            observed(observer(stub.url, **percentiles), over(PLAN))


def test_warnings_of_prometheus_are_kept_and_leave_a_doubt() -> None:
    with StubExecutor() as stub:
        stub.answers.extend(answers(0, 40, warnings=["a part is missing"]))
        observation = observed(observer(stub.url, status_query=None), over(PLAN))
    assert observation.logs == [
        "error_rate_query: Prometheus warns: a part is missing",
        "latency_query: Prometheus warns: a part is missing",
    ]
    assert Doubt.INCOMPLETE in observation.doubts


def asked(stub: StubExecutor) -> list[dict[str, list[str]]]:
    return [parse_qs(urlsplit(path).query) for _, path in stub.calls]


def moment(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


def time_of(ms: int) -> list[str]:
    """The parameter of a query."""
    return [f"{ms / 1000:.3f}"]


def test_the_window_is_the_real_one() -> None:
    plan, now = abort_plan(duration_seconds=60), round(time.time() * 1000)
    record = over(plan, began_ms=now - 8_100, over_ms=now - 500, applied_ms=now - 8_600)
    with StubExecutor() as stub:
        stub.answers.extend(answers(0, 40))
        observation = observer(stub.url, error_rate_query="x[{seconds}s]", status_query=None).observation(
            record, now, 5
        )
    assert asked(stub)[0] == {"query": ["x[7s]"], "time": time_of(now - 500)}
    assert observation.started_at == moment(now - 7_500)
    assert observation.ended_at == moment(now - 500)


@pytest.mark.parametrize(
    ("lasted_ms", "seconds"),
    [
        (955, 1),
        (2_850, 2),
        (2_860, 3),
        (3_000, 3),
        (3_800, 3),
        (3_820, 4),
        (19_900, 20),
        (20_700, 20),
        (60_000, 60),
        (3_600_000, 3_600),
    ],
)
def test_the_window_is_in_the_time_of_the_fault(lasted_ms: int, seconds: int) -> None:
    now = round(time.time() * 1000)
    record = over(PLAN, began_ms=now - lasted_ms, over_ms=now, applied_ms=now - lasted_ms)
    with StubExecutor() as stub:
        stub.answers.extend(answers(0, 40))
        asking = observer(stub.url, error_rate_query="{seconds}", status_query=None)
        asking.observation(record, now, 5)
    assert asked(stub)[0]["query"] == [str(seconds)]


def test_a_fault_of_less_than_a_second_is_not_observed() -> None:
    record = over(PLAN, began_ms=1_000_000, over_ms=1_000_900, applied_ms=1_000_000)
    with pytest.raises(FaultUnobservedError, match=r"in force for 0\.9 s; Prometheus is asked about whole"):
        observer("http://localhost").observation(record, 1_001_000, 5)


def test_the_window_begins_once_requests_that_the_fault_holds_are_answered() -> None:
    plan = delay_plan(duration_seconds=10, delay_seconds=2.5, start_delay_ms=1_500)
    now = round(time.time() * 1000)
    record = over(plan, began_ms=now - 10_000, over_ms=now, applied_ms=now - 10_000)
    with StubExecutor() as stub:
        stub.answers.extend(answers(0, 40, 0, 4))
        asking = observer(stub.url, error_rate_query="x[{seconds}s]", status_query=None, baseline=True)
        observation = asking.observation(record, now, 5)
    assert asked(stub)[0] == {"query": ["x[6s]"], "time": time_of(now)}
    assert asked(stub)[2] == {"query": ["x[6s]"], "time": time_of(now - 10_000)}
    assert observation.started_at == moment(now - 6_000)


def test_a_fault_that_holds_requests_for_longer_than_it_lasts_is_not_observed() -> None:
    held = over(delay_plan(duration_seconds=3, delay_seconds=3.0))
    with pytest.raises(FaultUnobservedError, match="in force for 3 s, and held each request for 3 s"):
        observed(observer("http://localhost"), held)
    spared = delay_plan(duration_seconds=3, delay_seconds=3.0, percentage=0)
    with StubExecutor() as stub:
        stub.answers.extend(answers(0, 40))
        assert observed(observer(stub.url, status_query=None), over(spared)).latency_ms == 40


def test_a_fault_that_was_over_before_it_was_in_force_was_not_observed() -> None:
    record = over(PLAN, began_ms=1000, over_ms=1000)
    with pytest.raises(FaultUnobservedError, match="never in force"):
        observer("http://localhost").observation(record, 2000, 5)


def test_a_baseline_ends_as_the_fault_is_applied() -> None:
    now = round(time.time() * 1000)
    record = over(abort_plan(duration_seconds=10), applied_ms=now - 40_000, takes_effect_ms=30_000)
    with StubExecutor() as stub:
        stub.answers.extend(answers("0.9", 900, "0.1", 40))
        observation = observer(stub.url, baseline=True, status_query=None).observation(record, now, 5)
    assert [each["time"] for each in asked(stub)] == [time_of(now)] * 2 + [time_of(now - 40_000)] * 2
    assert observation.baseline is not None
    assert (observation.error_rate, observation.baseline.error_rate) == (0.9, 0.1)
    assert observation.baseline.ended_at == moment(now - 40_000)
    assert observation.doubts == (Doubt.COUNT_UNKNOWN, Doubt.BASELINE_UNHEALTHY)


def test_a_baseline_ends_before_an_apply_that_was_answered_late() -> None:
    now = round(time.time() * 1000)
    record = over(abort_plan(duration_seconds=10), sent_ms=now - 13_000, applied_ms=now - 10_000)
    with StubExecutor() as stub:
        stub.answers.extend(answers("0.9", 900, "0.1", 40))
        observation = observer(stub.url, baseline=True, status_query=None).observation(record, now, 5)
    assert observation.baseline is not None
    assert observation.baseline.ended_at == moment(now - 13_000)


@pytest.mark.parametrize("off_s", [-3600, -14, -4, 4, 14, 3600])
def test_figures_by_a_wrong_clock_are_in_doubt_or_an_error(off_s: int) -> None:
    """The clock of Redis is put wrong instead: the server's own is that of this machine."""
    now = round((time.time() - off_s) * 1000)
    record = over(abort_plan(duration_seconds=20), applied_ms=now - 20_000)
    how = "ahead of" if off_s > 0 else "behind"
    with StubExecutor() as stub:
        stub.answers.extend(answers(0, 40))
        asking = observer(stub.url, status_query=None)
        if abs(off_s) > 10:
            with pytest.raises(
                FaultUnobservedError, match=rf"clock of Prometheus is .* s or more {how} that"
            ):
                asking.observation(record, now, 5)
            return
        observation = asking.observation(record, now, 5)
    assert Doubt.WINDOW_UNKNOWN in observation.doubts
    assert f"s or more {how} that of Redis" in observation.logs[0]


@pytest.mark.parametrize("off_s", [-0.9, -0.4, 0, 0.4, 0.9])
def test_clocks_that_differ_by_less_than_the_tolerance_leave_no_doubt(off_s: float) -> None:
    now = round((time.time() - off_s) * 1000)
    record = over(abort_plan(duration_seconds=20), applied_ms=now - 20_000)
    with StubExecutor() as stub:
        stub.answers.extend(answers(0, 40))
        observation = observer(stub.url, status_query=None).observation(record, now, 5)
    assert observation.doubts == (Doubt.COUNT_UNKNOWN,)


def test_zeros_without_a_count_mean_that_nothing_was_seen() -> None:
    """Queries may end with `or vector(0)`, which says nothing of the target."""
    with StubExecutor() as stub:
        stub.answers.extend(answers(0, 0))
        observation = observed(observer(stub.url, status_query=None), over(PLAN))
    assert (observation.error_rate, observation.latency_ms, observation.requests) == (None, None, None)
    assert observation.doubts == (Doubt.COUNT_UNKNOWN,)


def test_a_part_of_an_answer_leaves_a_doubt() -> None:
    with StubExecutor() as stub:
        stub.answers.extend(answers(0, 40, isPartial=True))
        observation = observed(observer(stub.url, status_query=None), over(PLAN))
    assert Doubt.INCOMPLETE in observation.doubts
    assert observation.logs[0] == "error_rate_query: Prometheus warns: the answer is partial (isPartial)"


def test_an_answer_that_says_error_has_no_figures() -> None:
    with StubExecutor() as stub:
        stub.answers.extend(answers(0, 40, status="error", error="out of memory"))
        with pytest.raises(ExecutorProtocolError, match="error_rate_query"):
            observed(observer(stub.url, status_query=None), over(PLAN))


def test_a_baseline_without_data_is_absent() -> None:
    with StubExecutor() as stub:
        stub.answers.extend(answers("0.9", 900, "NaN"))
        observation = observed(observer(stub.url, baseline=True, status_query=None), over(PLAN))
    assert observation.baseline is None


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{}", b'{"data": null}', b'{"data": {"result": [{"metric": {}, "value": [0, "x"]}]}}'],
)
def test_nonsense_is_a_protocol_error(body: bytes) -> None:
    with StubExecutor() as stub:
        stub.answers.append((200, body))
        with pytest.raises(ExecutorProtocolError, match="error_rate_query"):
            observed(observer(stub.url), over(PLAN))
