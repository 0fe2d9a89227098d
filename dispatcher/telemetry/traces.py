"""The trace that code belongs to, by OpenTelemetry's API only: without an SDK this does next to nothing."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

if TYPE_CHECKING:
    from opentelemetry.util.types import AttributeValue

    from dispatcher.models import FaultPlan

__all__ = ["TRACER", "W3C", "describe", "describe_plan", "mark_failed", "trace_id", "traceparent"]

TRACER = trace.get_tracer("fault-dispatcher", version("fault-dispatcher"))
"""Opens all spans of this project."""

W3C = TraceContextTextMapPropagator()
"""Reads and writes the header `traceparent`."""


def traceparent() -> str:
    """The current span, as that header names it. Empty if there is none."""
    headers: dict[str, str] = {}
    W3C.inject(headers)
    return headers.get("traceparent", "")


def trace_id() -> str | None:
    """The trace of the current span, in 32 hexadecimal digits. None if there is none."""
    context = trace.get_current_span().get_span_context()
    return trace.format_trace_id(context.trace_id) if context.is_valid else None


def describe(**attributes: AttributeValue | None) -> None:
    """Say more of the current span. What is None is left out."""
    named = {f"dispatcher.{name}": value for name, value in attributes.items() if value is not None}
    trace.get_current_span().set_attributes(named)


def describe_plan(plan_id: str, executor: str, plan: FaultPlan, **more: AttributeValue | None) -> None:
    """Say what plan the current span is about, and what else is known of it."""
    if trace.get_current_span().is_recording():
        target = {"service": plan.service, "api": plan.api}
        describe(plan_id=plan_id, executor=executor, fault_type=plan.fault_type.value, **target, **more)


def mark_failed(span: trace.Span, error: Exception) -> None:
    """Give the span the status of an error."""
    span.set_attribute("error.type", type(error).__name__)
    span.set_status(trace.StatusCode.ERROR, str(error))
