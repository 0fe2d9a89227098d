"""OpenTelemetry's SDK, for processes that export their traces. Needs the extra `otel`."""

from __future__ import annotations

import logging
import os
import time
from contextlib import contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from opentelemetry.sdk.trace import ReadableSpan

__all__ = ["Seldom", "TellingExporter", "in_own_words", "otlp_provider"]

VARIABLES = "OTEL_"

logger = logging.getLogger(__name__)


def otlp_provider(service: str, collector: str) -> TracerProvider:
    """Exports in batches, from a thread of its own. All except the name is left to the `OTEL_*` variables.

    `collector` is the spans' destination, as the log names it. Raises `ValueError` and `RuntimeError` for
    variables that the SDK does not accept.
    """
    own = {SERVICE_NAME: service, SERVICE_VERSION: version("fault-dispatcher")}
    with in_own_words():
        resource = Resource.create(own | dict(OTELResourceDetector().detect().attributes))
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        exporter = TellingExporter(OTLPSpanExporter(), collector)
        provider.add_span_processor(BatchSpanProcessor(exporter))
    # A line for each attempt is too many, and the endpoint's path may hold a secret.
    logging.getLogger(OTLPSpanExporter.__module__).setLevel(logging.CRITICAL)
    logging.getLogger("urllib3.connectionpool").addFilter(_is_no_export)
    logging.getLogger("opentelemetry.sdk._shared_internal").addFilter(Seldom())
    return provider


@contextmanager
def in_own_words() -> Iterator[None]:
    """Replaces what OpenTelemetry logs meanwhile by lines that name variables and show no value.

    Its own lines show wrong values, and one of the headers may be a secret.
    """
    theirs, complaints = logging.getLogger("opentelemetry"), _Complaints()
    propagated, theirs.propagate = theirs.propagate, False
    theirs.addHandler(complaints)
    try:
        yield
    finally:
        theirs.removeHandler(complaints)
        theirs.propagate = propagated
    for names in sorted(complaints.names):
        logger.warning("OpenTelemetry does not accept a value of %s, and ignores it", names)


class _Complaints(logging.Handler):
    """Collects which variables OpenTelemetry complains of."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.names: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        variables = sorted(name for name in os.environ if name.startswith(VARIABLES))
        words = record.getMessage().split()
        named = [name for name in variables if name in words]
        self.names.add(", ".join(named) or f"one of {', '.join(variables)}")


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
