"""An OpenTelemetry collector that keeps what it is sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from support.loopback import LoopbackServer

if TYPE_CHECKING:
    from typing import Any

    from opentelemetry.proto.trace.v1.trace_pb2 import Span as ProtoSpan
    from support.loopback import Answer

KINDS = {1: "internal", 2: "server", 3: "client", 4: "producer", 5: "consumer"}
ERROR = 2


@dataclass(frozen=True)
class Span:
    """One span, as it came over the wire."""

    service: str
    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    failed: bool
    attributes: dict[str, Any]


class Collector(LoopbackServer):
    """Takes OTLP over HTTP on a free loopback port, or refuses it with another `status`."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.bodies: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self.status = 200

    def answer_bytes(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        assert (method, path.partition("?")[0]) == ("POST", "/v1/traces")
        self.headers.append(headers)
        if self.status == 200:
            self.bodies.append(body)
            self.spans += _spans(ExportTraceServiceRequest.FromString(body))
        return self.status, b"", "application/x-protobuf"

    def named(self, name: str) -> list[Span]:
        return [span for span in self.spans if span.name == name]


def _spans(request: ExportTraceServiceRequest) -> list[Span]:
    return [
        _span(_attributes(resource.resource)["service.name"], span)
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def _span(service: str, span: ProtoSpan) -> Span:
    return Span(
        service=service,
        name=span.name,
        kind=KINDS[span.kind],
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        failed=span.status.code == ERROR,
        attributes=_attributes(span),
    )


def _attributes(of: Any) -> dict[str, Any]:
    found = {}
    for attribute in of.attributes:
        [(kind, value)] = MessageToDict(attribute.value).items()
        found[attribute.key] = int(value) if kind == "intValue" else value
    return found
