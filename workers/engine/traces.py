"""The spans of steps, each in the trace of its plan."""

from __future__ import annotations

import hashlib
import random
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from opentelemetry.context import Context, attach, create_key, detach, get_value
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    TraceFlags,
    get_current_span,
    set_span_in_context,
)

from dispatcher.telemetry.traces import TRACER, W3C, describe, describe_plan, mark_failed, trace_id
from workers.engine.decisions import Complete, Fail, Retry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dispatcher.ledger.record import PlanRecord
    from workers.engine.decisions import Decision

__all__ = ["own_trace_id", "step_span", "step_under_way", "traced"]

STEP = create_key("dispatcher-step")
SAMPLED = TraceFlags(TraceFlags.SAMPLED)


@contextmanager
def step_span(record: PlanRecord, kind: SpanKind = SpanKind.INTERNAL) -> Iterator[None]:
    """What is done in this block belongs to a step of the plan, and to its trace."""
    before = _before(record)
    span = TRACER.start_span("step", before, kind)
    token = attach(set_span_in_context(span, before))
    try:
        if span.is_recording():
            attempt = record.attempts + 1
            describe_plan(record.id, record.executor, record.plan, apply_id=record.apply_id, attempt=attempt)
        yield
    except Exception as exc:
        mark_failed(span, exc)
        raise
    finally:
        detach(token)
        span.end()


def step_under_way() -> PlanRecord | None:
    """The plan of the current step, as it was when the step began. None outside of any."""
    return cast("PlanRecord | None", get_value(STEP))


def traced(decision: Decision) -> Decision:
    """Note the decision in the step's span, and the trace in the observation."""
    span = get_current_span()
    if span.is_recording():
        describe(decision=type(decision).__name__.lower(), apply_id=decision.record.apply_id)
    match decision:
        case Complete(observation=observation):
            traced_observation = observation.model_copy(update={"trace_id": trace_id()})
            return replace(decision, observation=traced_observation)
        case Fail(error=error) | Retry(cause=error):
            mark_failed(span, error)
    return decision


def own_trace_id(plan_id: str) -> int:
    """The trace of a plan that was submitted without one: the same for all its calls, from all workers."""
    return int.from_bytes(hashlib.sha256(plan_id.encode()).digest()[:16])


def _before(record: PlanRecord) -> Context:
    """In the span that submitted the plan, or in one that no process opened, in the plan's own trace."""
    step = Context({STEP: record})
    if record.traceparent:
        submission = W3C.extract({"traceparent": record.traceparent}, step)
        if get_current_span(submission).get_span_context().is_valid:
            return submission
    span_id = random.getrandbits(63) + 1
    nobodys = SpanContext(own_trace_id(record.id), span_id, is_remote=True, trace_flags=SAMPLED)
    return set_span_in_context(NonRecordingSpan(nobodys), step)
