"""Traces go to an OpenTelemetry collector if the environment names one. Needs the extra `otel`."""

from __future__ import annotations

import logging
import os
import threading
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.sdk.trace import TracerProvider

__all__ = ["export_traces"]

FLUSH_WITHIN_S = 1.0
"""How long a process that ends waits for its last spans to go."""

VARIABLE = "OTEL_EXPORTER_OTLP"

logger = logging.getLogger(__name__)


def export_traces(service: str) -> Callable[[], None]:
    """Send this process's spans to the collector that the environment names; what sends the last of them.

    `service` is the name of the process if the environment has none. Nothing is done without a collector, if
    tracing is switched off, and in a process that has a tracer provider already.
    """
    if not _setting("ENDPOINT") or _switched_off():
        return _nothing
    from opentelemetry import trace  # noqa: PLC0415 (few processes export traces)

    foreign = not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
    provider = None if foreign else _provider(service)
    if provider is None:
        return _nothing
    trace.set_tracer_provider(provider)
    return lambda: _flush(provider)


def _provider(service: str) -> TracerProvider | None:
    """None if spans cannot be exported. The log says so, and the process works without traces."""
    try:
        collector = _collector()
        from dispatcher.telemetry.otlp import otlp_provider  # noqa: PLC0415 (the SDK is an extra)

        return otlp_provider(service, collector)
    except ImportError:
        logger.warning("traces are not exported, the SDK is missing: pip install 'fault-dispatcher[otel]'")
    except (ValueError, RuntimeError) as exc:
        logger.warning("traces are not exported: %s", exc)
    return None


def _collector() -> str:
    """Its address without a path, and without the secrets that a URL may hold. Raises `ValueError`."""
    if _setting("PROTOCOL") not in {"", "http/protobuf"}:
        raise ValueError(f"{VARIABLE}_PROTOCOL must be http/protobuf")
    try:
        url = urlsplit(_setting("ENDPOINT"))
        host, port = url.hostname, f":{url.port}" if url.port else ""
    except ValueError:
        host = None
    if host is None or url.scheme not in {"http", "https"}:
        raise ValueError(f"{VARIABLE}_ENDPOINT must be a URL such as http://localhost:4318")
    return f"{url.scheme}://{host}{port}"


def _setting(name: str) -> str:
    """A variable of the exporter, for traces or for all signals. Empty is absent (OpenTelemetry's rule)."""
    return os.environ.get(f"{VARIABLE}_TRACES_{name}") or os.environ.get(f"{VARIABLE}_{name}") or ""


def _switched_off() -> bool:
    disabled = os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    return disabled or os.environ.get("OTEL_TRACES_EXPORTER", "").strip().lower() == "none"


def _flush(provider: TracerProvider) -> None:
    last = threading.Thread(target=provider.shutdown, name="last-spans", daemon=True)
    last.start()
    last.join(FLUSH_WITHIN_S)
    if last.is_alive():
        logger.warning("the last spans are lost: no collector took them within %g s", FLUSH_WITHIN_S)


def _nothing() -> None:
    return
