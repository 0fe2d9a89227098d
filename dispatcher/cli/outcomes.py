"""Waits for plans, and shows what was asked of each and what was observed."""

from __future__ import annotations

import math
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from dispatcher.cli.lines import echo
from dispatcher.cli.terminal import stderr, stdout
from dispatcher.errors import (
    ExecutorClientError,
    LedgerRefusedError,
    LedgerUnavailableError,
    ResultTimeoutError,
)
from dispatcher.headers import lines_of
from dispatcher.models import FaultPlan, PlanState
from dispatcher.observations import RawObservation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from dispatcher.handles import PlanHandle

__all__ = ["Outcome", "collect", "exit_code", "fields_of", "show"]

SLICE_SEC = 0.5
HINT_AFTER_SEC = 5.0
AWAY_SEC = 300.0
"""How long Redis may be away before waiting for it is given up."""

AWAY_HINT_SEC = 3.0
"""How long Redis is away before that is worth a line."""


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


def collect(
    submitted: Sequence[tuple[PlanHandle, FaultPlan]],
    *,
    timeout_sec: float | None = None,
    check: Callable[[], None] = lambda: None,
) -> list[Outcome]:
    """Wait until every plan has ended, or for `timeout_sec` seconds: then the others end here with an error.

    `check` is called every `SLICE_SEC`, and may raise. Redis may be away for `AWAY_SEC`.
    """
    outcomes = []
    wait = _Wait(check, timeout_sec)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(),
        console=stderr,
        transient=True,
        disable=not sys.stderr.isatty(),
    )
    with bar:
        task = bar.add_task("fault plans", total=len(submitted))
        for handle, plan in submitted:
            outcomes.append(Outcome(handle.id, plan, wait.for_end_of(handle)))
            bar.advance(task)
    return outcomes


class _Wait:
    """Waits for plans, a slice of time after the other."""

    def __init__(self, check: Callable[[], None], timeout_sec: float | None) -> None:
        self._check = check
        self._timeout_sec = math.inf if timeout_sec is None else timeout_sec
        self._gives_up_at = time.monotonic() + self._timeout_sec
        self._away_since: float | None = None
        self._away_hinted = False
        self._hint_at: float | None = time.monotonic() + HINT_AFTER_SEC

    def for_end_of(self, handle: PlanHandle) -> RawObservation | ExecutorClientError:
        """How the plan has ended. Raises `LedgerUnavailableError` if Redis stays away."""
        while True:
            try:
                outcome = self._look(handle)
            except LedgerRefusedError:
                raise
            except LedgerUnavailableError as exc:
                if not self._bears_with_redis(exc):
                    raise
            else:
                self._away_since = None
                if outcome is not None:
                    return outcome
            self._check()

    def _look(self, handle: PlanHandle) -> RawObservation | ExecutorClientError | None:
        """How the plan has ended, or that it is no longer waited for. None if it has not ended yet.

        Raises `LedgerUnavailableError`.
        """
        left_s = self._gives_up_at - time.monotonic()
        try:
            return handle.result(min(SLICE_SEC, max(0.0, left_s)))
        except LedgerUnavailableError:
            raise
        except ResultTimeoutError:
            if left_s > SLICE_SEC:
                self._hint(handle)
                return None
            return self._given_up(handle)
        except ExecutorClientError as exc:
            return exc

    def _given_up(self, handle: PlanHandle) -> ResultTimeoutError:
        message = f"plan {handle.id} has not ended within {self._timeout_sec:g} s"
        return ResultTimeoutError(f"{message}: it is {handle.status().state}; it goes on, ask again later")

    def _bears_with_redis(self, trouble: LedgerUnavailableError) -> bool:
        """Wait before Redis is asked again. False if it has been away for too long."""
        now = time.monotonic()
        if self._away_since is None:
            self._away_since, self._away_hinted = now, False
        away_s = now - self._away_since
        if away_s > AWAY_SEC or now >= self._gives_up_at:
            return False
        if away_s > AWAY_HINT_SEC and not self._away_hinted:
            self._away_hinted = True
            stderr.print(
                f"{trouble.message}\nWaiting for Redis, {AWAY_SEC:g} s at most. The plans go on afterwards.",
                soft_wrap=True,
            )
        time.sleep(SLICE_SEC)
        return True

    def _hint(self, handle: PlanHandle) -> None:
        if self._hint_at is None or time.monotonic() < self._hint_at:
            return
        self._hint_at = None
        if handle.status().state is PlanState.QUEUED:
            stderr.print(
                f"plan {handle.id} has waited {HINT_AFTER_SEC:g} s for a worker. Is one running?\n"
                "Start one with: dispatcher worker",
                soft_wrap=True,
            )


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
