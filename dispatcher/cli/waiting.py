"""Waits until plans have ended, with a bar that shows how many have."""

from __future__ import annotations

import math
import sys
import time
from typing import TYPE_CHECKING

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from dispatcher.cli.outcomes import Outcome
from dispatcher.cli.terminal import stderr
from dispatcher.errors import (
    ExecutorClientError,
    LedgerRefusedError,
    LedgerUnavailableError,
    ResultTimeoutError,
)
from dispatcher.models import PlanState

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dispatcher.handles import PlanHandle
    from dispatcher.models import FaultPlan
    from dispatcher.observations import RawObservation

__all__ = ["collect"]

SLICE_SEC = 0.5
HINT_AFTER_SEC = 5.0
AWAY_SEC = 300.0
"""How long Redis may be away before waiting for it is given up."""

AWAY_HINT_SEC = 3.0
"""How long Redis is away before that is worth a line."""


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
