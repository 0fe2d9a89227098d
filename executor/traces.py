"""Spans as Envoy sends them (OTLP over HTTP), as OpenTelemetry JSON."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any, Protocol

from aiohttp import web
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from executor.loopback import LoopbackServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from opentelemetry.proto.trace.v1.trace_pb2 import Span

__all__ = ["SpanKeeper", "fault_spans", "span_receiver", "trace_json"]

IDS = ("traceId", "spanId", "parentSpanId")


class SpanKeeper(Protocol):
    """Keeps spans of requests that met a fault."""

    def wants_span(self, fault_id: str) -> bool:
        """Whether it keeps another span of this fault."""
        ...

    def take_span(self, fault_id: str, span: dict[str, Any]) -> None:
        """Keep a span, as OpenTelemetry JSON."""
        ...


def span_receiver(faults: SpanKeeper) -> LoopbackServer:
    """Takes Envoy's spans, and gives `faults` those that it wants."""

    async def receive(request: web.Request) -> web.Response:
        try:
            for fault_id, span in fault_spans(await request.read(), faults.wants_span):
                faults.take_span(fault_id, span)
        except ValueError as exc:
            return web.Response(status=400, text=str(exc))
        return web.Response(content_type="application/x-protobuf")

    return LoopbackServer("/v1/traces", receive)


def fault_spans(body: bytes, wanted: Callable[[str], bool]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each span of a request that met a wanted fault, with the fault's id. Raises `ValueError` for no OTLP.

    Only these are converted, which takes most of the time.
    """
    try:
        request = ExportTraceServiceRequest.FromString(body)
    except DecodeError as exc:
        raise ValueError(f"not an OTLP trace request: {exc}") from exc
    for resource in request.resource_spans:
        for scope in resource.scope_spans:
            for span in scope.spans:
                fault_id = _fault_id(span)
                if wanted(fault_id):
                    yield fault_id, _with_hex_ids(MessageToDict(span, use_integers_for_enums=True))


def trace_json(spans: list[dict[str, Any]]) -> dict[str, Any]:
    """The spans as one OpenTelemetry JSON document."""
    service = {"key": "service.name", "value": {"stringValue": "proxy"}}
    scope = {"scope": {"name": "envoy"}, "spans": spans}
    return {"resourceSpans": [{"resource": {"attributes": [service]}, "scopeSpans": [scope]}]}


def _fault_id(span: Span) -> str:
    values = (each.value.string_value for each in span.attributes if each.key == "fault_id")
    return next(values, "")


def _with_hex_ids(span: dict[str, Any]) -> dict[str, Any]:
    """OpenTelemetry's JSON has ids in hexadecimal, where protobuf's has base64."""
    return {name: base64.b64decode(value).hex() if name in IDS else value for name, value in span.items()}
