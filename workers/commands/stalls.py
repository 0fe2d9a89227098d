"""What holds plans up, for `dispatcher doctor`: facts come in, findings go out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dispatcher.cli.pace import duration
from dispatcher.errors import (
    ExecutorConnectionError,
    ExecutorServerError,
    ExecutorTimeoutError,
    RecordUnreadableError,
)
from dispatcher.ledger.record import PlanRecord, budget_ms
from dispatcher.models import PlanState
from workers.commands.diagnostics import LATE_S, Finding, Level

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from dispatcher.settings.executors import ExecutorClientConfig

__all__ = [
    "applies",
    "busy",
    "hanging",
    "leases",
    "longest_step_s",
    "retention",
    "unreadable",
    "unreceived",
]

MOST_NAMED = 5
SETTLED_AFTER_S = 10.0
"""A worker that has been connected for this long has started, and answers."""

QUEUES_LONG_S = 60.0
CALLS_A_STEP = 3
STEP_MARGIN_S = 30.0
DOWN = (ExecutorConnectionError, ExecutorServerError, ExecutorTimeoutError)


def hanging(silent: Mapping[str, float]) -> Iterator[Finding]:
    """Workers that do not answer, although they are connected to Redis for this many seconds."""
    for name, seconds in sorted(silent.items()):
        if seconds >= SETTLED_AFTER_S:
            message = f"is connected to Redis, for {duration(seconds)} so far, but does not answer"
            fix = "It is stopped, hangs or lacks CPU time: see its log and its machine, then restart it"
            yield Finding(f"worker {name}", Level.ERROR, message, fix)


def busy(replies: Mapping[str, Mapping[str, Any]], longest_s: float) -> Iterator[Finding]:
    """Plans that wait in workers for a free thread, and steps that do not end within `longest_s` seconds."""
    waiting, longest_wait_s = 0, 0.0
    for name, reply in sorted(replies.items()):
        waiting += int(_number(reply, "waiting"))
        longest_wait_s = max(longest_wait_s, _number(reply, "longest_wait_s"))
        step_s = _number(reply, "longest_step_s")
        if step_s > longest_s:
            message = f"a step has been under way for {duration(step_s)}, and no call may take so long"
            yield Finding(f"worker {name}", Level.ERROR, message, "See its log, then restart it")
    if waiting and longest_wait_s > LATE_S:
        message = (
            f"{waiting} plans wait in workers for a free thread, one of them for {duration(longest_wait_s)}"
        )
        fix = (
            "Start more workers, or give them more threads (worker.threads); is the Executor slow to answer?"
        )
        yield Finding("waiting plans", Level.ERROR, message, fix)


def unreceived(
    messages: int, plans: Sequence[PlanRecord | RecordUnreadableError | None], now_ms: int, within_s: float
) -> Iterator[Finding]:
    """Messages that wait in the queue, and of which workers received none within `within_s` seconds."""
    queued = [plan for plan in plans if isinstance(plan, PlanRecord) and plan.state is PlanState.QUEUED]
    waits_s = max((now_ms - plan.due_ms for plan in queued if plan.cause is None), default=0) / 1000
    if messages and waits_s > QUEUES_LONG_S:
        message = f"{messages} in the queue, none received within {within_s:.1f} s; a plan waits for its own "
        fix = "Are all threads busy? Did Celery's rate_limit or cancel_consumer stop the workers?"
        yield Finding("messages", Level.ERROR, f"{message}for {duration(waits_s)}", fix)


def leases(lost: int, within_s: float) -> Iterator[Finding]:
    """How many leases were lost while doctor looked, within `within_s` seconds."""
    if lost:
        message = f"{lost} lost within {within_s:.1f} s: their workers were killed, hang, or lack CPU time"
        fix = "See the logs and the load of the workers' machines. The plans go on elsewhere"
        yield Finding("leases", Level.WARNING, message, fix)


def unreadable(
    aside: Mapping[str, str], plans: Sequence[PlanRecord | RecordUnreadableError | None]
) -> Iterator[Finding]:
    """Plans that this version cannot read: what workers have set aside, by id, and what is read here."""
    found = {plan.plan_id: plan.message for plan in plans if isinstance(plan, RecordUnreadableError)}
    found = {plan_id: f"plan {plan_id} is set aside: {why}" for plan_id, why in aside.items()} | found
    if found:
        named = "; ".join(list(found.values())[:MOST_NAMED])
        more = f"; and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
        fix = "Start a worker of the version that wrote them; or stop their faults, and dispatcher cancel ID"
        yield Finding("unreadable plans", Level.ERROR, f"{named}{more}", fix)


def applies(plans: Sequence[PlanRecord | RecordUnreadableError | None]) -> Iterator[Finding]:
    """Executors that are healthy by their own word, and fail the applies of plans in flight."""
    records = [plan for plan in plans if isinstance(plan, PlanRecord)]
    for executor in sorted({record.executor for record in records}):
        own = [record for record in records if record.executor == executor]
        failing = [each for each in own if each.apply_id is None and isinstance(each.failure, DOWN)]
        if not failing:
            continue
        level = Level.WARNING if any(record.apply_id is not None for record in own) else Level.ERROR
        count = "1 plan waits" if len(failing) == 1 else f"{len(failing)} plans wait"
        message = f"{count} for another attempt to apply: {failing[0].failure}"
        yield Finding(f"applies of {executor}", level, message, "Read the log of that Executor")


def retention(
    keep_s: int, plans: Sequence[PlanRecord | RecordUnreadableError | None], now_ms: int
) -> Finding:
    """Whether results are kept until the last of the plans in flight has ended."""
    records = [plan for plan in plans if isinstance(plan, PlanRecord)]
    message = f"results are kept for {duration(keep_s)}"
    if not records:
        return Finding("retention", Level.OK, message)
    span_s = (max(_ends_ms(each, now_ms) for each in records) - min(r.submitted_ms for r in records)) / 1000
    if span_s <= keep_s:
        return Finding("retention", Level.OK, message)
    message += f", but the plans in flight take {duration(span_s)} from the first submission to the last end"
    fix = "Raise result_expires_sec, or fetch each result as its plan ends"
    return Finding("retention", Level.WARNING, message, fix)


def longest_step_s(executors: Iterable[ExecutorClientConfig]) -> float:
    """What a step takes at most, by the timeouts of its calls."""
    calls = [each.connection_timeout_sec + each.read_timeout_sec for each in executors]
    return CALLS_A_STEP * max(calls, default=0.0) + STEP_MARGIN_S


def _ends_ms(record: PlanRecord, now_ms: int) -> int:
    begins_ms = record.started_ms or max(now_ms, record.due_ms)
    return begins_ms + budget_ms(record.plan, 0)


def _number(reply: Mapping[str, Any], name: str) -> float:
    """A worker of another version may not say it."""
    value = reply.get(name)
    return float(value) if isinstance(value, int | float) else 0.0
