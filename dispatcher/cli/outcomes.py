"""Shows what was asked of each plan and what was observed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.table import Table

from dispatcher.cli.lines import echo
from dispatcher.cli.terminal import stdout
from dispatcher.errors import ExecutorClientError
from dispatcher.headers import lines_of
from dispatcher.observations import RawObservation

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from dispatcher.models import FaultPlan

__all__ = ["Outcome", "exit_code", "fields_of", "show"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one plan ended."""

    plan_id: str
    plan: FaultPlan
    result: RawObservation | ExecutorClientError

    @property
    def fields(self) -> dict[str, object]:
        """The plan, and its observation or its error, for programs."""
        error = self.result if isinstance(self.result, ExecutorClientError) else None
        fields = fields_of(self.plan_id, self.plan, error)
        if isinstance(self.result, RawObservation):
            fields["observation"] = self.result.model_dump(mode="json", exclude_none=True)
        return fields


def fields_of(plan_id: str, plan: FaultPlan, error: ExecutorClientError | None) -> dict[str, object]:
    """A plan for programs, and what went wrong with it."""
    fields: dict[str, object] = {"id": plan_id, "plan": plan.model_dump(mode="json", exclude_none=True)}
    if error is not None:
        fields["error"] = {"type": type(error).__name__, "message": error.message}
    return fields


def show(outcomes: Iterable[Outcome], decisions: Sequence[str] | None = None) -> None:
    """A table of what was asked and what was observed, and a line for each doubt and each plan that failed.

    What was not observed is `-`. `decisions` has one word for each outcome, for a column of its own.
    """
    outcomes = list(outcomes)
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("target", overflow="fold")
    table.add_column("fault", overflow="fold")
    for name in ("hit %", "status", "errors", "latency", "requests"):
        table.add_column(name, justify="right")
    if decisions is not None:
        table.add_column("fits")
    for number, outcome in enumerate(outcomes):
        decision = [] if decisions is None else [decisions[number]]
        table.add_row(*_asked(outcome.plan), *_observed(outcome.result), *decision)
    stdout.print(table)
    for outcome in outcomes:
        if isinstance(outcome.result, ExecutorClientError):
            name = type(outcome.result).__name__
            echo(f"plan {outcome.plan_id}: {name}: {outcome.result.message}", error=True)
            continue
        for doubt in outcome.result.doubts:
            echo(f"plan {outcome.plan_id}: {doubt}: {doubt.meaning}")


def exit_code(outcomes: Iterable[Outcome]) -> int:
    """0 if every plan has its observation, otherwise the exit code of the first error."""
    errors = (outcome.result for outcome in outcomes if isinstance(outcome.result, ExecutorClientError))
    return next((error.exit_code for error in errors), 0)


def _asked(plan: FaultPlan) -> tuple[str, str, str]:
    late = f"\nafter {plan.start_delay_ms} ms" if plan.start_delay_ms else ""
    only = "".join(f"\n{line}" for line in lines_of(plan.headers or {}))
    return f"{plan.service}\n{plan.api}{only}", f"{plan.effect}{late}", f"{plan.percentage}"


def _observed(result: RawObservation | ExecutorClientError) -> tuple[str, ...]:
    if isinstance(result, ExecutorClientError):
        return ("-", "-", "-", "-")
    return (
        "-" if result.status_code is None else str(result.status_code),
        "-" if result.error_rate is None else f"{result.error_rate:.2f}",
        "-" if result.latency_ms is None else f"{result.latency_ms:.1f} ms",
        "-" if result.requests is None else str(result.requests),
    )
