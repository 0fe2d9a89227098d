"""The dashboard and the alerts on a real Prometheus that scrapes the exporter of a fleet at work."""

from __future__ import annotations

import json
import math
import threading
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from support.eventually import eventually
from support.exporter import Exporter
from support.plans import abort_plan
from support.processes import start_worker
from support.prometheus import Prometheus
from support.redis_server import RedisServer
from support.stub_executor import StubExecutor

from dispatcher import Dispatcher, Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

CONFIG = Path(__file__).parents[2] / "config"
SCRAPES = """
global: {{scrape_interval: 200ms, evaluation_interval: 1s}}
rule_files: [{rules}]
scrape_configs:
  - job_name: dispatcher
    static_configs: [{{targets: ["{exporter}"]}}]
"""
QUICK = {"DISPATCHER_EXECUTORS__DEFAULT__INITIAL_RETRY_DELAY_SEC": "0.01"}
PANELS: list[dict[str, Any]] = [
    panel
    for panel in json.loads((CONFIG / "grafana/dashboard.json").read_text("utf-8"))["panels"]
    if panel["type"] != "row"
]
RULES = [
    rule
    for group in yaml.safe_load((CONFIG / "prometheus/alerts.yml").read_text("utf-8"))["groups"]
    for rule in group["rules"]
]


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Of a fleet that carries plans out as long as it is asked, with a call that fails from time to time."""
    folder = tmp_path_factory.mktemp("fleet")
    with ExitStack() as running:
        redis = running.enter_context(RedisServer(folder))
        exporter = running.enter_context(Exporter(folder / "exporter.log", redis.url))
        scrapes = SCRAPES.format(rules=CONFIG / "prometheus/alerts.yml", exporter=exporter.address)
        prometheus = running.enter_context(Prometheus(tmp_path_factory.mktemp("prometheus"), scrapes))
        stub = running.enter_context(StubExecutor())
        address = {"DISPATCHER_REDIS_URL": redis.url, "DISPATCHER_EXECUTORS__DEFAULT__BASE_URL": stub.url}
        running.enter_context(start_worker(folder / "worker.log", address | QUICK))
        running.enter_context(busy(redis.url, stub))
        yield prometheus


@contextmanager
def busy(redis_url: str, stub: StubExecutor) -> Iterator[None]:
    """Plans one batch after the other."""
    over = threading.Event()

    def submit() -> None:
        with Dispatcher(Settings.model_validate({"redis_url": redis_url})) as dispatcher:
            while not over.is_set():
                stub.answers.append((503, {}))
                plans = [abort_plan(api=f"/{number}") for number in range(5)]
                list(dispatcher.submit_many(plans).as_completed(60))

    thread = threading.Thread(target=submit)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize("panel", PANELS, ids=[panel["title"] for panel in PANELS])
def test_no_panel_of_the_dashboard_is_empty(panel: dict[str, Any], prometheus: Prometheus) -> None:
    def shown(expression: str) -> list[float]:
        found = prometheus.query(expression.replace("$__rate_interval", "5s").replace("$executor", ".*"))
        numbers = [float(sample["value"][1]) for sample in found]
        return [number for number in numbers if not math.isnan(number)]

    for target in panel["targets"]:
        eventually(partial(shown, target["expr"]))


@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_no_alert_fails_and_none_fires_for_a_fleet_that_is_well(
    rule: dict[str, Any], prometheus: Prometheus
) -> None:
    eventually(lambda: prometheus.query("up == 1"))
    prometheus.query(rule["expr"])
    assert prometheus.query(f'ALERTS{{alertname="{rule["alert"]}", alertstate="firing"}}') == []


def test_prometheus_evaluates_every_alert(prometheus: Prometheus) -> None:
    def healths() -> dict[str, str]:
        return {rule["name"]: rule["health"] for rule in prometheus.rules()}

    assert set(healths()) == {rule["alert"] for rule in RULES}
    eventually(lambda: set(healths().values()) == {"ok"})
