"""Envoy's bootstrap configuration. Pure functions from values to JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = [
    "FAULT_FILTER",
    "LAYER",
    "MARK_PATH",
    "METADATA",
    "STAT_PREFIX",
    "TARGETS",
    "Address",
    "Files",
    "bootstrap",
    "cluster_name",
]

STAT_PREFIX = "proxy"
TARGETS = "targets"
"""Name of the route configuration, which is replaced with every change of the faults."""

LAYER = "faults"
"""Name of the runtime layer that says which faults are on."""

MARK_PATH = "/ready?mark="
"""A request to the admin interface that is written to the access log, followed by a number."""

METADATA = "executor"
FAULT_FILTER = "envoy.filters.http.fault"
TYPE = "type.googleapis.com/envoy"
PROTOCOL_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
NO_TIMEOUT = "0s"
SPANS_URL = "http://executor/v1/traces"

LONGEST_SOCKET_PATH = 100
"""Bytes. Linux permits 107, macOS 103."""

Address = tuple[str, int]


class Files(NamedTuple):
    """What Envoy and the Executor share, all in one folder."""

    admin: Path
    """The Unix socket of Envoy's admin interface. Only its owner may use it."""

    control: Path
    """The Unix socket on which Envoy asks for its routes."""

    spans: Path
    """The Unix socket that takes Envoy's spans (OTLP over HTTP)."""

    access_log: Path

    @classmethod
    def of(cls, folder: Path) -> Files:
        """Their paths. Raises `OSError` if the folder's path is too long for a Unix socket."""
        files = cls(
            folder / "admin.sock", folder / "control.sock", folder / "spans.sock", folder / "access.log"
        )
        if max(len(str(each).encode()) for each in files[:3]) > LONGEST_SOCKET_PATH:
            most = LONGEST_SOCKET_PATH - len("/control.sock")
            raise OSError(f"{folder}: the path is too long for Unix sockets: at most {most} bytes")
        return files


def bootstrap(*, services: Mapping[str, Address], listen: Address, files: Files) -> dict[str, Any]:
    """The bootstrap file."""
    clusters = [_service(name, address) for name, address in services.items()]
    return {
        "node": {"id": "executor", "cluster": "executor"},
        "admin": {
            "address": {"pipe": {"path": str(files.admin), "mode": 0o600}},
            "access_log": [_marks(files.access_log)],
        },
        "dynamic_resources": {"ads_config": _control_plane()},
        "layered_runtime": {
            "layers": [
                {
                    "name": "static",
                    "static_layer": {
                        "tracing": {"opentelemetry": {"flush_interval_ms": 100}},
                    },
                },
                {"name": LAYER, "rtds_layer": {"name": LAYER, "rtds_config": _aggregated()}},
            ]
        },
        "static_resources": {
            "listeners": [
                {
                    "name": "proxy",
                    "address": _address(listen),
                    "filter_chains": [{"filters": [_connection_manager(files)]}],
                }
            ],
            "clusters": [
                *clusters,
                _local("control-plane", files.control, "http2_protocol_options"),
                _local("spans", files.spans, "http_protocol_options"),
            ],
        },
    }


def cluster_name(service: str) -> str:
    """Envoy's name for a service's addresses."""
    return f"service-{service}"


def _control_plane() -> dict[str, Any]:
    back_off = {"base_interval": "0.1s", "max_interval": "0.5s"}
    service = {"cluster_name": "control-plane", "retry_policy": {"retry_back_off": back_off}}
    return {"api_type": "GRPC", "transport_api_version": "V3", "grpc_services": [{"envoy_grpc": service}]}


def _aggregated() -> dict[str, Any]:
    return {"ads": {}, "resource_api_version": "V3"}


def _connection_manager(files: Files) -> dict[str, Any]:
    return {
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": f"{TYPE}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": STAT_PREFIX,
            "strip_any_host_port": True,
            "rds": {"route_config_name": TARGETS, "config_source": _aggregated()},
            "upgrade_configs": [{"upgrade_type": "websocket"}],
            "stream_idle_timeout": NO_TIMEOUT,  # a stream may be silent for as long as its two ends want
            "request_headers_timeout": "30s",
            "http_filters": [
                _named(FAULT_FILTER, "extensions.filters.http.fault.v3.HTTPFault"),
                _named("envoy.filters.http.router", "extensions.filters.http.router.v3.Router"),
            ],
            "access_log": [_requests(files.access_log)],
            "access_log_options": {
                "flush_access_log_on_new_request": True,
                "flush_log_on_tunnel_successfully_established": True,
            },
            "tracing": _tracing(),
        },
    }


def _requests(file: Path) -> dict[str, Any]:
    """Two lines for each request: when it arrives, and when it ends, or when it opens a websocket.

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
        grpc="%GRPC_STATUS_NUMBER%",
        content_type="%REQ(CONTENT-TYPE)%",
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


def _tracing() -> dict[str, Any]:
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
                "http_uri": {"uri": "http://executor/v1/traces", "cluster": "spans", "timeout": "1s"}
            },
        ),
    }


def _named(name: str, kind: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "typed_config": {"@type": f"{TYPE}.{kind}", **fields}}


def _service(name: str, address: Address) -> dict[str, Any]:
    """Requests arrive there in the protocol in which they came: HTTP/1.1, or HTTP/2 without TLS."""
    both: dict[str, Any] = {"http_protocol_options": {}, "http2_protocol_options": {}}
    protocols = {"use_downstream_protocol_config": both}
    return _cluster(cluster_name(name), "STRICT_DNS", _address(address), protocols)


def _local(name: str, socket: Path, protocol: str) -> dict[str, Any]:
    """What listens on a Unix socket."""
    protocols: dict[str, Any] = {"explicit_http_config": {protocol: {}}}
    return _cluster(name, "STATIC", {"pipe": {"path": str(socket)}}, protocols)


def _cluster(name: str, kind: str, address: dict[str, Any], protocols: dict[str, Any]) -> dict[str, Any]:
    options = {"@type": f"{TYPE}.extensions.upstreams.http.v3.HttpProtocolOptions", **protocols}
    return {
        "name": name,
        "type": kind,
        "connect_timeout": "2s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
        "typed_extension_protocol_options": {PROTOCOL_OPTIONS: options},
    }


def _address(address: Address) -> dict[str, Any]:
    host, port = address
    return {"socket_address": {"address": host, "port_value": port}}
