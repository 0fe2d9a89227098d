"""The span of an HTTP call, in the span of its step."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from opentelemetry.trace import SpanKind, StatusCode, use_span

from dispatcher.telemetry.traces import TRACER, mark_failed

if TYPE_CHECKING:
    from collections.abc import Callable

    from workers.drivers.answers import Answer

__all__ = ["traced_call"]

FIRST_ERROR_STATUS = 400
PORTS = {"http": 80, "https": 443}


def traced_call(method: str, url: str, send: Callable[[], Answer]) -> Answer:
    """Send one HTTP request. Names follow OpenTelemetry's semantic conventions for HTTP clients."""
    span = TRACER.start_span(method, kind=SpanKind.CLIENT)
    if not span.is_recording():  # the step's span goes into the header then
        return send()
    server = urlsplit(url)
    span.set_attributes(
        {
            "http.request.method": method,
            "url.full": url,
            "server.address": server.hostname or "",
            "server.port": server.port or PORTS[server.scheme],
        }
    )
    with use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
        try:
            answer = send()
        except Exception as exc:
            mark_failed(span, exc)
            raise
        span.set_attribute("http.response.status_code", answer.status)
        if answer.status >= FIRST_ERROR_STATUS:
            span.set_attribute("error.type", str(answer.status))
            span.set_status(StatusCode.ERROR)
        return answer
