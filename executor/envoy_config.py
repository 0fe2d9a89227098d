"""Envoy's configuration: how it starts, and which routes have faults. Pure functions from values to JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from executor.contract import FaultApply
    from executor.faults import Fault

__all__ = ["MARK_PATH", "STAT_PREFIX", "TARGETS", "Address", "bootstrap", "routes"]

STAT_PREFIX = "proxy"
TARGETS = "targets"
"""Name of the route configuration, which is replaced with every change of the faults."""

MARK_PATH = "/ready?mark="
"""A request to the admin interface that is written to the access log, followed by a number."""

METADATA = "executor"
FAULT_FILTER = "envoy.filters.http.fault"
TYPE = "type.googleapis.com/envoy"

Address = tuple[str, int]


def bootstrap(
    *, services: Mapping[str, Address], listen: Address, traces: Address, routes_file: Path, access_log: Path
) -> dict[str, Any]:
    """The bootstrap file. `traces` is the destination of spans, as OTLP over HTTP."""
    clusters = [_cluster(_cluster_name(name), address) for name, address in services.items()]
    return {
        "node": {"id": "executor", "cluster": "executor"},
        "admin": {"address": _address(("127.0.0.1", 0)), "access_log": [_marks(access_log)]},
        "layered_runtime": {
            "layers": [
                {"name": "static", "static_layer": {"tracing": {"opentelemetry": {"flush_interval_ms": 100}}}}
            ]
        },
        "static_resources": {
            "listeners": [
                {
                    "name": "proxy",
                    "address": _address(listen),
                    "filter_chains": [{"filters": [_connection_manager(traces, routes_file, access_log)]}],
                }
            ],
            "clusters": [*clusters, _cluster("traces", traces)],
        },
    }


def routes(services: Iterable[str], faults: Iterable[Fault], version: int) -> dict[str, Any]:
    """The route configuration file: one virtual host a service, each fault before the plain route."""
    faults = list(faults)
    hosts = [
        {
            "name": service,
            "domains": [service],
            "routes": [
                *(
                    route
                    for fault in faults
                    if fault.request.service == service
                    for route in _fault_routes(fault)
                ),
                {"match": {"prefix": "/"}, "route": _to(service)},
            ],
        }
        for service in services
    ]
    return {
        "version_info": str(version),
        "resources": [
            {"@type": f"{TYPE}.config.route.v3.RouteConfiguration", "name": TARGETS, "virtual_hosts": hosts}
        ],
    }


def _fault_routes(fault: Fault) -> list[dict[str, Any]]:
    """One roll decides: the first route takes the requests that are hit, the second those that are spared.

    Both name the fault, so that Envoy itself says during which fault a request arrived.
    """
    request = fault.request
    share = {"numerator": request.percentage, "denominator": "HUNDRED"}
    roll = {"default_value": share, "runtime_key": f"faults.{fault.apply_id}"}
    return [
        {
            "match": {"path": request.api, "runtime_fraction": roll},
            "typed_per_filter_config": {FAULT_FILTER: _fault(request, fault.apply_id)},
            "metadata": _metadata(fault.apply_id, chosen=True),
            "route": _to(request.service),
        },
        {
            "match": {"path": request.api},
            "metadata": _metadata(fault.apply_id, chosen=False),
            "route": _to(request.service),
        },
    ]


def _metadata(fault_id: str, *, chosen: bool) -> dict[str, Any]:
    """What the access log says of a request from its arrival on."""
    return {"filter_metadata": {METADATA: {"fault_id": fault_id, "chosen": chosen}}}


def _fault(request: FaultApply, apply_id: str) -> dict[str, Any]:
    """All of the requests that come this way are hit: the share was decided by the route."""
    always = {"numerator": 100, "denominator": "HUNDRED"}
    fault: dict[str, Any] = {
        "@type": f"{TYPE}.extensions.filters.http.fault.v3.HTTPFault",
        "filter_metadata": {"fault_id": apply_id},
    }
    if request.held_ms:
        fault["delay"] = {"fixed_delay": f"{request.held_ms / 1000:.3f}s", "percentage": always}
    if request.fault_config.http_status is not None:
        fault["abort"] = {"http_status": request.fault_config.http_status, "percentage": always}
    return fault


def _connection_manager(traces: Address, routes_file: Path, access_log: Path) -> dict[str, Any]:
    return {
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": f"{TYPE}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": STAT_PREFIX,
            "strip_any_host_port": True,
            "rds": {"route_config_name": TARGETS, "config_source": _watched_file(routes_file)},
            "http_filters": [
                _named(FAULT_FILTER, "extensions.filters.http.fault.v3.HTTPFault"),
                _named("envoy.filters.http.router", "extensions.filters.http.router.v3.Router"),
            ],
            "access_log": [_requests(access_log)],
            "access_log_options": {"flush_access_log_on_new_request": True},
            "tracing": _tracing(traces),
        },
    }


def _requests(file: Path) -> dict[str, Any]:
    """Two lines for each request: when it arrives, and when it ends.

    Clients may choose the request's id, and so what Envoy calls the stream's id. The connection and the
    nanosecond of the arrival are Envoy's own.
    """
    return _log_file(
        file,
        kind="%ACCESS_LOG_TYPE%",
        stream="%CONNECTION_ID%-%START_TIME(%s.%9f)%",
        arrived_at="%START_TIME(%s.%6f)%",
        start_time="%START_TIME%",
        fault_id=f"%METADATA(ROUTE:{METADATA}:fault_id)%",
        chosen=f"%METADATA(ROUTE:{METADATA}:chosen)%",
        hit=f"%DYNAMIC_METADATA({FAULT_FILTER}:fault_id)%",
        method="%REQ(:METHOD)%",
        path="%REQ(:PATH)%",
        status="%RESPONSE_CODE%",
        flags="%RESPONSE_FLAGS%",
        answered_us="%COMMON_DURATION(DS_RX_BEG:DS_TX_END:us)%",
        ended_ms="%DURATION%",
    )


def _marks(file: Path) -> dict[str, Any]:
    """Marks in the file of the requests. Lines of requests have no such field: no client can forge one."""
    asked = {"name": ":path", "string_match": {"prefix": MARK_PATH}}
    return _log_file(file, mark="%REQ(:PATH)%") | {"filter": {"header_filter": {"header": asked}}}


def _log_file(file: Path, /, **fields: str) -> dict[str, Any]:
    return _named(
        "envoy.access_loggers.file",
        "extensions.access_loggers.file.v3.FileAccessLog",
        path=str(file),
        log_format={"json_format": fields},
    )


def _tracing(traces: Address) -> dict[str, Any]:
    host, port = traces
    return {
        "random_sampling": {"value": 100},
        "custom_tags": [
            {
                "tag": "fault_id",
                "metadata": {
                    "kind": {"route": {}},
                    "metadata_key": {"key": METADATA, "path": [{"key": "fault_id"}]},
                },
            }
        ],
        "provider": _named(
            "envoy.tracers.opentelemetry",
            "config.trace.v3.OpenTelemetryConfig",
            service_name="proxy",
            http_service={
                "http_uri": {"uri": f"http://{host}:{port}/v1/traces", "cluster": "traces", "timeout": "1s"}
            },
        ),
    }


def _watched_file(path: Path) -> dict[str, Any]:
    """Envoy reloads the file when another is moved into its place."""
    source = {"path": str(path), "watched_directory": {"path": str(path.parent)}}
    return {"path_config_source": source, "resource_api_version": "V3"}


def _named(name: str, kind: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "typed_config": {"@type": f"{TYPE}.{kind}", **fields}}


def _cluster(name: str, address: Address) -> dict[str, Any]:
    endpoint = {"endpoint": {"address": _address(address)}}
    return {
        "name": name,
        "type": "STRICT_DNS",
        "connect_timeout": "2s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }


def _cluster_name(service: str) -> str:
    return f"service-{service}"


def _to(service: str) -> dict[str, Any]:
    return {"cluster": _cluster_name(service)}


def _address(address: Address) -> dict[str, Any]:
    host, port = address
    return {"socket_address": {"address": host, "port_value": port}}
