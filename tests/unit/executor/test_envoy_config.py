"""How Envoy is configured for faults."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from executor.contract import FaultApply, FaultConfig
from executor.envoy_config import FAULT_FILTER, routes
from executor.faults import Fault

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def fault(percentage: int = 30, **config: int) -> Fault:
    request = FaultApply(
        service="S",
        api="/a",
        fault_type="delay" if "delay_ms" in config else "abort",
        percentage=percentage,
        duration_seconds=5,
        fault_config=FaultConfig.model_validate(config),
    )
    return Fault(request, None, NOW)


def routes_of(*faults: Fault, service: str = "S") -> list[dict[str, Any]]:
    [resource] = routes(["S", "T"], faults, 7)["resources"]
    [host] = [host for host in resource["virtual_hosts"] if host["name"] == service]
    return list(host["routes"])


def test_without_faults_every_request_goes_straight_to_its_service() -> None:
    assert routes_of() == [{"match": {"prefix": "/"}, "route": {"cluster": "service-S"}}]


def test_a_fault_touches_its_own_service_only() -> None:
    assert len(routes_of(fault(http_status=503))) == 3
    assert len(routes_of(fault(http_status=503), service="T")) == 1


def test_one_roll_decides_and_everything_inside_it_is_hit() -> None:
    hit, spared, _ = routes_of(fault(30, http_status=503, start_delay_ms=200))
    assert hit["match"]["runtime_fraction"]["default_value"] == {"numerator": 30, "denominator": "HUNDRED"}
    filter_config = hit["typed_per_filter_config"][FAULT_FILTER]
    assert filter_config["delay"]["fixed_delay"] == "0.200s"
    assert filter_config["abort"]["http_status"] == 503
    always = {"numerator": 100, "denominator": "HUNDRED"}
    assert filter_config["delay"]["percentage"] == filter_config["abort"]["percentage"] == always
    assert spared["match"] == {"path": "/a"}
    assert "typed_per_filter_config" not in spared
    said = [route["metadata"]["filter_metadata"]["executor"] for route in (hit, spared)]
    assert [each["chosen"] for each in said] == [True, False]
    assert len({each["fault_id"] for each in said}) == 1


def test_a_start_delay_lengthens_a_delay() -> None:
    filter_config = routes_of(fault(delay_ms=2500, start_delay_ms=200))[0]["typed_per_filter_config"]
    assert filter_config[FAULT_FILTER]["delay"]["fixed_delay"] == "2.700s"
    assert "abort" not in filter_config[FAULT_FILTER]
