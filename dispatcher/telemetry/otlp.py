"""OpenTelemetry's SDK, for processes that export their traces. Needs the extra `otel`."""

from __future__ import annotations

import logging
import time
from importlib.metadata import version
from typing import TYPE_CHECKING

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.sdk.trace import ReadableSpan

__all__ = ["Seldom", "TellingExporter", "otlp_provider"]

logger = logging.getLogger(__name__)


def otlp_provider(service: str, collector: str) -> TracerProvider:
    """Exports in batches, from a thread of its own. All except the name is left to the `OTEL_*` variables.

    `collector` is the spans' destination, as the log names it. Raises `ValueError` and `RuntimeError` for
    variables that the SDK does not accept.
    """
    own = {SERVICE_NAME: service, SERVICE_VERSION: version("fault-dispatcher")}
    resource = Resource.create(own | dict(OTELResourceDetector().detect().attributes))
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    exporter = TellingExporter(OTLPSpanExporter(), collector)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    # A line for each attempt is too many, and the endpoint's path may hold a secret.
    logging.getLogger(OTLPSpanExporter.__module__).setLevel(logging.CRITICAL)
    logging.getLogger("urllib3.connectionpool").addFilter(_is_no_export)
    logging.getLogger("opentelemetry.sdk._shared_internal").addFilter(Seldom())
    return provider


class TellingExporter(SpanExporter):
    """Says when the collector goes away and when it is back, rather than with each batch."""

    def __init__(self, exporter: SpanExporter, collector: str) -> None:
        self._exporter = exporter
        self._collector = collector
        self._away = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        away = result is not SpanExportResult.SUCCESS
        if away != self._away:
            self._away = away
            message = "takes no traces, and spans are lost" if away else "takes traces again"
            logger.warning("the collector at %s %s", self._collector, message)
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)


def _is_no_export(record: logging.LogRecord) -> bool:
    return not str(record.threadName).startswith("OtelBatch")


class Seldom(logging.Filter):
    """Lets one line through in a while."""

    def __init__(self, every_s: float = 600.0) -> None:
        super().__init__()
        self._every_s = every_s
        self._next = 0.0

    def filter(self, record: logging.LogRecord) -> bool:  # noqa: ARG002 (the base class's signature)
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + self._every_s
        return True
