"""The Prometheus observer against a real Prometheus that scrapes a service of the test's own."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from support.eventually import eventually
from support.loopback import LoopbackServer
from support.plans import abort_plan
from support.prometheus import Prometheus
from support.stub_executor import StubExecutor

from dispatcher import (
    ExecutorConnectionError,
    ExecutorProtocolError,
    ExecutorRejectedError,
    FaultLostError,
)
from dispatcher.ledger.record import PlanRecord
from dispatcher.settings.executors import PrometheusSettings
from workers.observers.base import Phase
from workers.observers.prometheus import PrometheusObserver

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.loopback import Answer

    from dispatcher import FaultPlan

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


def observer(url: str, **changes: str) -> PrometheusObserver:
    fields = {"kind": "prometheus", "base_url": url} | QUERIES | changes
    return PrometheusObserver(PrometheusSettings.model_validate(fields), connections=1)


def over(plan: FaultPlan) -> PlanRecord:
    """The record of a plan whose fault is just over."""
    now_ms = round(time.time() * 1000)
    record = PlanRecord("p1", plan, "default", timeout_ms=30_000, submitted_ms=now_ms, due_ms=now_ms)
    return record.applied("f1", now_ms - plan.duration_seconds * 1000).completed()


def test_the_queries_say_what_was_observed(exporter: Exporter, prometheus: str) -> None:
    scrapes = exporter.scrapes
    eventually(lambda: exporter.scrapes >= scrapes + 2)
    exporter.requests.update({503: 75, 200: 25})
    exporter.seconds += 20.0
    scrapes = exporter.scrapes
    eventually(lambda: exporter.scrapes >= scrapes + 3)
    observation = observer(prometheus).observation(over(PLAN), 5)
    assert observation.execution_id == "f1"
    assert observation.error_rate == pytest.approx(0.75)
    assert observation.latency_ms == pytest.approx(200.0)
    assert observation.status_code == 503


def test_prometheus_looks_by_itself(prometheus: str) -> None:
    asking = observer(prometheus)
    assert asking.every_s is None
    assert asking.sample(over(PLAN), Phase.DURING, 5) == ""


def test_a_target_of_which_prometheus_knows_nothing_was_not_observed(prometheus: str) -> None:
    with pytest.raises(FaultLostError, match="0 samples and not one"):
        observer(prometheus).observation(over(abort_plan(service="Nobody")), 5)


def test_a_query_that_gives_no_number_gives_no_observation(prometheus: str) -> None:
    with pytest.raises(FaultLostError, match="gave nan"):
        observer(prometheus, error_rate_query="vector(0) / vector(0)").observation(over(PLAN), 5)


def test_a_query_that_gives_several_numbers_gives_no_observation(exporter: Exporter, prometheus: str) -> None:
    exporter.requests.update({503: 1, 200: 1})
    scrapes = exporter.scrapes
    eventually(lambda: exporter.scrapes >= scrapes + 3)
    with pytest.raises(FaultLostError, match="2 samples and not one"):
        observer(prometheus, error_rate_query="requests_total").observation(over(PLAN), 5)


def test_a_query_that_prometheus_does_not_understand_is_rejected(prometheus: str) -> None:
    with pytest.raises(ExecutorRejectedError, match="parse error"):
        observer(prometheus, error_rate_query="sum(").observation(over(PLAN), 5)


def test_an_answer_that_is_no_vector_is_a_protocol_error(prometheus: str) -> None:
    with pytest.raises(ExecutorProtocolError, match="no instant vector"):
        observer(prometheus, error_rate_query="1").observation(over(PLAN), 5)


def test_a_prometheus_that_is_away_is_said_to_be(free_tcp_port: int) -> None:
    with pytest.raises(ExecutorConnectionError, match="api/v1/query"):
        observer(f"http://127.0.0.1:{free_tcp_port}").observation(over(PLAN), 5)


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{}", b'{"data": null}', b'{"data": {"result": [{"metric": {}, "value": [0, "x"]}]}}'],
)
def test_nonsense_is_a_protocol_error(body: bytes) -> None:
    with StubExecutor() as stub:
        stub.answers.append((200, body))
        with pytest.raises(ExecutorProtocolError):
            observer(stub.url).observation(over(PLAN), 5)
