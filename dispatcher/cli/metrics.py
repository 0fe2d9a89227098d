"""`dispatcher metrics`"""

from __future__ import annotations

import threading
from contextlib import closing
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from dispatcher.cli.json_lines import json_option, print_json
from dispatcher.cli.options import Executor, check_executor
from dispatcher.cli.terminal import stdout
from dispatcher.ledger.counts import plan_counts
from dispatcher.ledger.ledger import connect
from dispatcher.settings.settings import load_settings
from dispatcher.telemetry.exporter import serving
from dispatcher.telemetry.metrics import CallKind, CallOutcome, ExecutorClientMetrics, executor_counts

if TYPE_CHECKING:
    from dispatcher.ledger.counts import PlanCounts
    from dispatcher.settings.settings import Settings
    from dispatcher.telemetry.metrics import ExecutorCounts

__all__ = ["metrics"]


def metrics(
    *,
    executor: Executor = "default",
    as_json: Annotated[bool, json_option("with executor, its counts, requests, plans")] = False,
    serve: Annotated[bool, typer.Option(help="Serve those of all Executors to Prometheus.")] = False,
    host: Annotated[str, typer.Option(help="Address to listen on, with --serve.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The same; 0 chooses one.")] = 9808,
) -> None:
    """Show what all workers have counted so far, or serve it to Prometheus until Ctrl-C."""
    settings = load_settings()
    if serve:
        _serve(settings, host, port)
    check_executor(settings, executor)
    with closing(connect(settings)) as ledger:
        [counts], plans = executor_counts(ledger, [executor]), plan_counts(ledger)
    if as_json:
        print_json(_fields(executor, counts, plans))
    else:
        _show(executor, counts, plans)


def _serve(settings: Settings, host: str, port: int) -> None:
    with serving(settings, host, port) as chosen:
        stdout.print(f"metrics are at http://{host}:{chosen}/metrics", soft_wrap=True, highlight=False)
        threading.Event().wait()


def _fields(executor: str, counts: ExecutorCounts, plans: PlanCounts) -> dict[str, object]:
    requests = {
        kind: {outcome: counts.requests[kind, outcome] for outcome in CallOutcome} for kind in CallKind
    }
    return {
        "executor": executor,
        **ExecutorClientMetrics.of(counts).to_dict(),
        "circuit_breaker_state": counts.breaker_state,
        "requests": requests,
        "plans": {"in_flight": plans.in_flight, **asdict(plans)},
    }


def _show(executor: str, counts: ExecutorCounts, plans: PlanCounts) -> None:
    message = ExecutorClientMetrics.of(counts)
    stdout.print(_table([f"executor {executor}", "", ""], _calls_rows(message, counts), 1), "")
    by_kind = [
        [kind, *(str(counts.requests[kind, outcome] or "") for outcome in CallOutcome)] for kind in CallKind
    ]
    stdout.print(_table(["calls", *CallOutcome], by_kind, len(CallOutcome)), "")
    stdout.print(_table(["plans", "", ""], _plans_rows(plans), 1))


def _calls_rows(message: ExecutorClientMetrics, counts: ExecutorCounts) -> list[list[str]]:
    return [
        ["requests", str(message.total_requests), ""],
        ["  successful", str(message.successful_requests), f"{message.get_success_rate():.1%} of requests"],
        ["  failed", str(message.failed_requests), ""],
        ["    timeouts", str(message.timeout_errors), ""],
        ["    connections", str(message.connection_errors), ""],
        ["    bad requests", str(message.bad_request_errors), ""],
        ["retries", str(message.total_retries), f"{message.get_retry_rate():.1%} of requests"],
        ["  successful", str(message.successful_retries), ""],
        ["latency, mean", f"{message.avg_latency_ms:.1f}", "ms"],
        ["  95 % within", f"{message.p95_latency_ms:.1f}", "ms"],
        ["  99 % within", f"{message.p99_latency_ms:.1f}", "ms"],
        ["breaker opened", str(message.circuit_breaker_opens), f"times; it is {counts.breaker_state}"],
        ["  half opened", str(message.circuit_breaker_half_opens), "times"],
    ]


def _plans_rows(plans: PlanCounts) -> list[list[str]]:
    states = ", ".join(f"{number} {state}" for state, number in plans.states.items())
    ended = ", ".join(f"{number} {state}" for state, number in plans.ended.items())
    mean_ms = 1000 * plans.late_s / plans.steps if plans.steps else 0.0
    return [
        ["submitted", str(plans.submitted), "no more are taken: halted" if plans.halted else ""],
        ["ended", str(sum(plans.ended.values())), ended],
        ["in flight", str(plans.in_flight), states],
        ["  waiting", str(plans.waiting), ""],
        ["  oldest due", f"{plans.oldest_due_s:.1f}", "s"],
        ["steps", str(plans.steps), f"{mean_ms:.1f} ms late on average"],
        ["  leases lost", str(plans.leases_lost), ""],
        ["messages lost", str(plans.messages_lost), "steps begun without them"],
        ["plans set aside", str(plans.set_aside), "another version wrote them"],
    ]


def _table(header: list[str], rows: list[list[str]], numbers: int) -> Table:
    """So many columns after the first hold `numbers`."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column, name in enumerate(header):
        table.add_column(name, justify="right" if 0 < column <= numbers else "left")
    for row in rows:
        table.add_row(*row)
    return table
