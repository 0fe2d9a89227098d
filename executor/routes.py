"""What Envoy does with requests, as protobuf messages: which routes have faults, and which faults are on.

Each fault has two routes before the service's plain one, which takes the requests without the fault's
headers: they are neither hit nor counted. Both are closed unless the runtime layer opens them: a layer that
expires takes all faults away, and nothing else.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration

from executor.envoy_config import FAULT_FILTER, LAYER, METADATA, TARGETS, TYPE, cluster_name
from executor.xds_pb2 import (
    FaultAbort,
    FaultDelay,
    FractionalPercent,
    GrpcRouteMatchOptions,
    HeaderMatcher,
    HTTPFault,
    Metadata,
    Route,
    RouteAction,
    RouteConfiguration,
    RouteMatch,
    Runtime,
    RuntimeFractionalPercent,
    StringMatcher,
    VirtualHost,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from executor.contract import FaultApply
    from executor.faults import Fault

__all__ = ["RouteTable", "runtime_layer"]

ALWAYS = FractionalPercent(numerator=100)
NEVER = FractionalPercent(numerator=0)
NO_TIMEOUT = Duration()
"""Streams last as long as their two ends want."""


class RouteTable:
    """The route configuration for any set of faults. Keeps each fault's routes while it is in the set."""

    def __init__(self, services: Iterable[str]) -> None:
        self._services = list(services)
        self._routes: dict[str, list[Route]] = {}

    def configuration(self, faults: Iterable[Fault]) -> RouteConfiguration:
        """One virtual host a service; each fault before the plain route."""
        hosts = {service: VirtualHost(name=service, domains=[service]) for service in self._services}
        kept: dict[str, list[Route]] = {}
        for fault in faults:
            kept[fault.apply_id] = self._routes.get(fault.apply_id) or _fault_routes(fault)
            hosts[fault.request.service].routes.extend(kept[fault.apply_id])
        self._routes = kept
        for service, host in hosts.items():
            host.routes.append(Route(match=RouteMatch(prefix="/"), route=_to(service)))
        return RouteConfiguration(name=TARGETS, virtual_hosts=hosts.values())


def runtime_layer(faults: Iterable[Fault]) -> Runtime:
    """The runtime layer in which these faults are on."""
    runtime = Runtime(name=LAYER)
    for fault in faults:
        runtime.layer[_on(fault)] = 100
        runtime.layer[_hit(fault)] = fault.request.percentage
    return runtime


def _fault_routes(fault: Fault) -> list[Route]:
    """One roll decides: the first route takes the requests that are hit, the second those that are spared.

    Both name the fault, so that Envoy itself says during which fault a request arrived.
    """
    action = _to(fault.request.service)
    hit = Route(
        match=_match(fault.request, _hit(fault)),
        metadata=_metadata(fault.apply_id, chosen=True),
        route=action,
    )
    hit.typed_per_filter_config[FAULT_FILTER].CopyFrom(_fault(fault.request, fault.apply_id))
    match, metadata = _match(fault.request, _on(fault)), _metadata(fault.apply_id, chosen=False)
    return [hit, Route(match=match, metadata=metadata, route=action)]


def _match(request: FaultApply, key: str) -> RouteMatch:
    """Path, headers and protocol, if the runtime layer opens the route for this request."""
    fraction = RuntimeFractionalPercent(default_value=NEVER, runtime_key=key)
    headers = [
        HeaderMatcher(name=name, string_match=StringMatcher(exact=value))
        for name, value in (request.headers or {}).items()
    ]
    grpc = GrpcRouteMatchOptions() if request.protocol == "grpc" else None
    return RouteMatch(path=request.api, headers=headers, grpc=grpc, runtime_fraction=fraction)


def _hit(fault: Fault) -> str:
    """The runtime key of the share of the requests that are hit."""
    return f"hit.{fault.apply_id}"


def _on(fault: Fault) -> str:
    """The runtime key that says whether the fault is on."""
    return f"on.{fault.apply_id}"


def _metadata(fault_id: str, *, chosen: bool) -> Metadata:
    """What the access log says of a request from its arrival on."""
    metadata = Metadata()
    metadata.filter_metadata[METADATA].update({"fault_id": fault_id, "chosen": chosen})
    return metadata


def _fault(request: FaultApply, apply_id: str) -> Any:
    """All of the requests that come this way are hit: the share was decided by the route."""
    fault = HTTPFault()
    fault.filter_metadata.update({"fault_id": apply_id})
    if request.held_ms:
        held = Duration()
        held.FromTimedelta(timedelta(milliseconds=request.held_ms))
        fault.delay.CopyFrom(FaultDelay(fixed_delay=held, percentage=ALWAYS))
    config = request.fault_config
    if config.http_status is not None:
        fault.abort.CopyFrom(FaultAbort(http_status=config.http_status, percentage=ALWAYS))
    if config.grpc_status is not None:
        fault.abort.CopyFrom(FaultAbort(grpc_status=config.grpc_status, percentage=ALWAYS))
    kind = f"{TYPE}.extensions.filters.http.fault.v3.HTTPFault"
    return Any(type_url=kind, value=fault.SerializeToString())


def _to(service: str) -> RouteAction:
    return RouteAction(cluster=cluster_name(service), timeout=NO_TIMEOUT, idle_timeout=NO_TIMEOUT)
