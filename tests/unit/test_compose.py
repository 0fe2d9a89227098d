"""What docker-compose.yml promises its operators."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))[
    "services"
]


@pytest.mark.parametrize("name", SERVICES)
def test_only_loopback_ports_are_published(name: str) -> None:
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", []))


@pytest.mark.parametrize("name", SERVICES)
def test_every_published_port_is_explained(name: str) -> None:
    page = (ROOT / "docs" / "security.md").read_text("utf-8")
    for port in SERVICES[name].get("ports", []):
        assert f"| `{name}` | {port.rpartition(':')[2]} |" in page


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_checked_for_health(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"]


def test_redis_keeps_plans_and_asks_for_a_password() -> None:
    script = SERVICES["redis"]["command"][-1]
    assert all(
        line in script
        for line in ("requirepass", "appendonly yes", "appendfsync always", "maxmemory-policy noeviction")
    )


def test_flower_asks_for_a_password() -> None:
    assert SERVICES["flower"]["environment"]["FLOWER_BASIC_AUTH"].startswith("operator:${FLOWER_PASSWORD:?")


def test_grafana_asks_for_a_password() -> None:
    environment = SERVICES["grafana"]["environment"]
    assert environment["GF_SECURITY_ADMIN_PASSWORD"].startswith("${GRAFANA_PASSWORD:?")


def test_what_must_be_set_is_in_the_example() -> None:
    compose = (ROOT / "docker-compose.yml").read_text("utf-8")
    example = (ROOT / ".env.example").read_text("utf-8")
    assert set(re.findall(r"\$\{(\w+):\?", compose)) == set(re.findall(r"^(\w+)=$", example, re.MULTILINE))


def test_what_may_be_set_is_in_the_example_with_its_default() -> None:
    compose = (ROOT / "docker-compose.yml").read_text("utf-8")
    example = (ROOT / ".env.example").read_text("utf-8")
    may_be_set = set(re.findall(r"\$\{(\w+):-(.*?)\}", compose))
    assert may_be_set == set(re.findall(r"^# (\w+)=(.*)$", example, re.MULTILINE))


def test_prometheus_and_grafana_come_with_their_profile_only() -> None:
    profiles = {name: service["profiles"] for name, service in SERVICES.items() if "profiles" in service}
    assert profiles == {"prometheus": ["monitoring"], "grafana": ["monitoring"]}


@pytest.mark.parametrize("name", ["prometheus", "grafana"])
def test_what_is_mounted_is_there(name: str) -> None:
    sources = [volume.partition(":")[0] for volume in SERVICES[name]["volumes"]]
    paths = [ROOT / source for source in sources if source.startswith("./")]
    assert paths
    assert all(path.exists() for path in paths)


def test_prometheus_scrapes_services_that_are_there_at_their_ports() -> None:
    config = yaml.safe_load((ROOT / "config/prometheus/prometheus.yml").read_text("utf-8"))
    jobs = {each["job_name"]: each["static_configs"][0]["targets"] for each in config["scrape_configs"]}
    for job, service in (("dispatcher", "metrics"), ("workers", "flower")):
        [port] = [option.partition("=")[2] for option in SERVICES[service]["command"] if "--port=" in option]
        assert jobs[job] == [f"{service}:{port}"]
        assert SERVICES[service]["ports"][0].endswith(f":{port}")


def test_flower_only_looks() -> None:
    assert "--read-only" in SERVICES["flower"]["command"]


def test_the_executor_makes_a_token_that_only_workers_can_read() -> None:
    [file] = [
        option.partition("=")[2] for option in SERVICES["executor"]["command"] if "--token-file" in option
    ]
    assert SERVICES["worker"]["environment"]["DISPATCHER_EXECUTORS__DEFAULT__TOKEN_FILE"] == file
    mounts = {name: service.get("volumes", []) for name, service in SERVICES.items()}
    having = {name: mount for name, mounts in mounts.items() for mount in mounts if "token" in mount}
    folder = file.rpartition("/")[0]
    assert having == {"executor": f"executor-token:{folder}", "worker": f"executor-token:{folder}:ro"}
    assert SERVICES["worker"]["depends_on"]["executor"] == {"condition": "service_healthy"}


def test_the_volume_of_the_token_belongs_to_the_user_of_the_image() -> None:
    folder = SERVICES["executor"]["volumes"][0].partition(":")[2]
    assert f"install --directory --owner dispatcher --mode 0700 {folder}" in (ROOT / "Dockerfile").read_text(
        "utf-8"
    )


def test_no_token_is_in_an_environment_or_in_a_command() -> None:
    text = (ROOT / "docker-compose.yml").read_text("utf-8")
    assert not re.search(r"EXECUTOR_TOKEN|TOKEN:", text)


@pytest.mark.parametrize("name", SERVICES)
def test_no_service_has_privileges(name: str) -> None:
    assert SERVICES[name]["cap_drop"] == ["ALL"]
    assert SERVICES[name]["security_opt"] == ["no-new-privileges:true"]


@pytest.mark.parametrize("name", SERVICES)
def test_what_a_service_writes_is_in_memory_or_on_a_volume(name: str) -> None:
    assert SERVICES[name]["read_only"] == (name != "grafana")
    assert SERVICES[name]["tmpfs"] == ["/tmp"]


@pytest.mark.parametrize("name", SERVICES)
def test_logs_do_not_fill_the_disk(name: str) -> None:
    assert SERVICES[name]["logging"] == {"driver": "local"}


@pytest.mark.parametrize("name", SERVICES)
def test_what_is_built_has_no_name_that_another_service_could_take(name: str) -> None:
    assert ("build" in SERVICES[name]) != ("image" in SERVICES[name])


def test_workers_scale() -> None:
    assert not {"ports", "container_name", "hostname"} & set(SERVICES["worker"])


def test_nothing_runs_as_root() -> None:
    lines = (ROOT / "Dockerfile").read_text("utf-8").splitlines()
    assert [line for line in lines if line.startswith("USER ")][-1] == "USER dispatcher"
    assert SERVICES["redis"]["user"] == "redis"
