"""What Envoy does with faults: its routes, and which of them are open."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from google.protobuf.json_format import MessageToDict

from executor.contract import FaultApply, FaultConfig
from executor.faults import Fault
from executor.routes import RouteTable, runtime_layer
from executor.xds_pb2 import HTTPFault, Route

NOW = datetime(2030, 1, 1, tzinfo=UTC)
PLAIN = {"match": {"prefix": "/"}, "route": {"cluster": "service-S", "timeout": "0s", "idleTimeout": "0s"}}


def fault(percentage: int = 30, headers: dict[str, str] | None = None, **config: int) -> Fault:
    request = FaultApply(
        service="S",
        api="/a",
        headers=headers,
        protocol="grpc" if "grpc_status" in config else "http",
        fault_type="delay" if "delay_ms" in config else "abort",
        percentage=percentage,
        duration_seconds=5,
        fault_config=FaultConfig.model_validate(config),
    )
    return Fault(request, None, NOW)


def routes_of(*faults: Fault, service: str = "S") -> list[dict[str, Any]]:
    """As JSON. What the fault filter does is under `fault`."""
    found = RouteTable(["S", "T"]).configuration(faults)
    [host] = [host for host in found.virtual_hosts if host.name == service]
    return [as_json(route) for route in host.routes]


def as_json(route: Route) -> dict[str, Any]:
    faults = [HTTPFault.FromString(each.value) for each in route.typed_per_filter_config.values()]
    route.typed_per_filter_config.clear()
    return MessageToDict(route) | ({"fault": MessageToDict(faults[0])} if faults else {})


def test_without_faults_every_request_goes_straight_to_its_service() -> None:
    assert routes_of() == [PLAIN]


def test_a_fault_touches_its_own_service_only() -> None:
    assert len(routes_of(fault(http_status=503))) == 3
    assert len(routes_of(fault(http_status=503), service="T")) == 1


def test_a_fault_is_off_unless_the_runtime_layer_turns_it_on() -> None:
    one = fault(30, http_status=503)
    hit, spared, plain = routes_of(one)
    fractions = [route["match"]["runtimeFraction"] for route in (hit, spared)]
    assert [fraction["defaultValue"] for fraction in fractions] == [{}, {}], "0 of 100"
    layer = MessageToDict(runtime_layer([one]))["layer"]
    assert [layer[fraction["runtimeKey"]] for fraction in fractions] == [30, 100]
    assert plain == PLAIN
    assert "layer" not in MessageToDict(runtime_layer([]))


def test_one_roll_decides_and_everything_inside_it_is_hit() -> None:
    hit, spared, _ = routes_of(fault(30, http_status=503, start_delay_ms=200))
    filter_config = hit["fault"]
    assert filter_config["delay"]["fixedDelay"] == "0.200s"
    assert filter_config["abort"]["httpStatus"] == 503
    assert filter_config["delay"]["percentage"] == filter_config["abort"]["percentage"] == {"numerator": 100}
    assert spared["match"]["path"] == hit["match"]["path"] == "/a"
    assert "fault" not in spared
    said = [route["metadata"]["filterMetadata"]["executor"] for route in (hit, spared)]
    assert [each["chosen"] for each in said] == [True, False]
    assert len({each["fault_id"] for each in said}) == 1


def test_a_start_delay_lengthens_a_delay() -> None:
    filter_config = routes_of(fault(delay_ms=2500, start_delay_ms=200))[0]["fault"]
    assert filter_config["delay"]["fixedDelay"] == "2.700s"
    assert "abort" not in filter_config


def test_both_routes_of_a_fault_ask_for_its_headers_and_the_plain_one_takes_the_rest() -> None:
    hit, spared, plain = routes_of(fault(headers={"x-test-run": "42", "x-b": "1"}, http_status=503))
    asked = [
        {"name": "x-test-run", "stringMatch": {"exact": "42"}},
        {"name": "x-b", "stringMatch": {"exact": "1"}},
    ]
    assert [route["match"]["headers"] for route in (hit, spared)] == [asked] * 2
    assert plain == PLAIN


def test_a_fault_of_grpc_calls_leaves_all_other_requests_alone_and_aborts_with_a_grpc_status() -> None:
    hit, spared, plain = routes_of(fault(grpc_status=14))
    assert [route["match"]["grpc"] for route in (hit, spared)] == [{}] * 2
    assert hit["fault"]["abort"] == {"grpcStatus": 14, "percentage": {"numerator": 100}}
    assert plain == PLAIN
    assert "grpc" not in routes_of(fault(http_status=503))[0]["match"]


def test_routes_are_made_once_for_each_fault() -> None:
    table, first, second = RouteTable(["S"]), fault(http_status=503), fault(http_status=500)
    both = table.configuration([first, second])
    assert table.configuration([first, second]) == both
    assert len(table.configuration([second]).virtual_hosts[0].routes) == 3
