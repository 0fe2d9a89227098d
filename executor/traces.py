"""Spans as Envoy sends them (OTLP over HTTP), as OpenTelemetry JSON."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from aiohttp import web
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from executor.loopback import LoopbackServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["fault_spans", "span_receiver", "trace_json"]

IDS = ("traceId", "spanId", "parentSpanId")


def span_receiver(take: Callable[[str, dict[str, Any]], None]) -> LoopbackServer:
    """Takes Envoy's spans. `take` gets each span of a request that met a fault, and the fault's id."""

    async def receive(request: web.Request) -> web.Response:
        try:
            for fault_id, span in fault_spans(await request.read()):
                take(fault_id, span)
        except ValueError as exc:
            return web.Response(status=400, text=str(exc))
        return web.Response(content_type="application/x-protobuf")

    return LoopbackServer("/v1/traces", receive)


def fault_spans(body: bytes) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each span of a request that met a fault, with the fault's id. Raises `ValueError` for no OTLP."""
    try:
        request = MessageToDict(ExportTraceServiceRequest.FromString(body), use_integers_for_enums=True)
    except DecodeError as exc:
        raise ValueError(f"not an OTLP trace request: {exc}") from exc
    for resource in request.get("resourceSpans", []):
        for scope in resource.get("scopeSpans", []):
            for span in scope.get("spans", []):
                fault_id = _attribute(span, "fault_id")
                if fault_id:
                    yield fault_id, _with_hex_ids(span)


def trace_json(spans: list[dict[str, Any]]) -> dict[str, Any]:
    """The spans as one OpenTelemetry JSON document."""
    service = {"key": "service.name", "value": {"stringValue": "proxy"}}
    scope = {"scope": {"name": "envoy"}, "spans": spans}
    return {"resourceSpans": [{"resource": {"attributes": [service]}, "scopeSpans": [scope]}]}


def _attribute(span: dict[str, Any], key: str) -> str:
    for attribute in span.get("attributes", []):
        if attribute.get("key") == key:
            return str(attribute["value"].get("stringValue", ""))
    return ""


def _with_hex_ids(span: dict[str, Any]) -> dict[str, Any]:
    """OpenTelemetry's JSON has ids in hexadecimal, where protobuf's has base64."""
    return {name: base64.b64decode(value).hex() if name in IDS else value for name, value in span.items()}
