"""The contents of `config/` for Prometheus and Grafana, by promtool and by the exporter's own names."""

from __future__ import annotations

import json
import re
import subprocess
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from support.programs import program

from dispatcher.telemetry.exporter import FleetCollector

if TYPE_CHECKING:
    from dispatcher.ledger.ledger import Ledger

CONFIG = Path(__file__).parents[2] / "config"
ALERTS = [
    rule
    for group in yaml.safe_load((CONFIG / "prometheus/alerts.yml").read_text("utf-8"))["groups"]
    for rule in group["rules"]
]
TRIED = yaml.safe_load((CONFIG / "prometheus/alerts_test.yml").read_text("utf-8"))["tests"]
DASHBOARD: dict[str, Any] = json.loads((CONFIG / "grafana/dashboard.json").read_text("utf-8"))
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
EXPRESSIONS = [target["expr"] for panel in PANELS for target in panel.get("targets", [])]


@pytest.mark.parametrize(
    "arguments",
    [
        ["check", "config", "prometheus.yml"],
        ["check", "rules", "alerts.yml"],
        ["test", "rules", "alerts_test.yml"],
    ],
    ids=" ".join,
)
def test_promtool_finds_nothing_wrong(arguments: list[str]) -> None:
    command = [program("promtool"), *arguments]
    done = subprocess.run(
        command, cwd=CONFIG / "prometheus", capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("alert", [rule["alert"] for rule in ALERTS])
def test_every_alert_is_seen_to_fire_and_to_be_silent(alert: str) -> None:
    tries = [each for test in TRIED for each in test["alert_rule_test"] if each["alertname"] == alert]
    assert {bool(each["exp_alerts"]) for each in tries} == {True, False}


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: str(rule["alert"]))
def test_every_alert_says_what_is_wrong_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert set(rule["annotations"]) == {"summary", "action"}


def test_alerts_and_dashboard_use_what_the_exporter_has(ledger: Ledger) -> None:
    registry = CollectorRegistry()
    registry.register(FleetCollector(ledger, ["default"]))
    told = {
        sample.name
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
    }
    asked = set(re.findall(r"dispatcher_\w+", " ".join([*EXPRESSIONS, *(rule["expr"] for rule in ALERTS)])))
    assert asked <= told
    assert told - asked == set(), "no person would see these"


def test_the_panels_have_titles_words_and_places_of_their_own() -> None:
    shown = [panel for panel in PANELS if panel["type"] != "row"]
    assert all(panel["title"] and panel["description"].endswith(".") for panel in shown)
    assert Counter(panel["id"] for panel in PANELS).most_common(1)[0][1] == 1
    for one, other in combinations([panel["gridPos"] for panel in PANELS], 2):
        assert (
            one["x"] + one["w"] <= other["x"]
            or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"]
            or other["y"] + other["h"] <= one["y"]
        )
    assert max(panel["gridPos"]["x"] + panel["gridPos"]["w"] for panel in PANELS) == 24


def test_grafana_finds_dashboard_and_prometheus_by_itself() -> None:
    [source] = yaml.safe_load((CONFIG / "grafana/datasources.yml").read_text("utf-8"))["datasources"]
    assert (source["type"], source["url"], source["isDefault"]) == (
        "prometheus",
        "http://prometheus:9090",
        True,
    )
    [provider] = yaml.safe_load((CONFIG / "grafana/dashboards.yml").read_text("utf-8"))["providers"]
    compose = yaml.safe_load((CONFIG.parent / "docker-compose.yml").read_text("utf-8"))
    mounted = [volume.split(":")[:2] for volume in compose["services"]["grafana"]["volumes"]]
    places = {source: Path(target) for source, target in mounted}
    assert str(places["./config/grafana/dashboard.json"].parent) == provider["options"]["path"]
