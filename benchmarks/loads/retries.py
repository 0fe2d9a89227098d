"""How late retries begin, and what many of them leave behind in a worker.

`python -m benchmarks.loads.retries`. One worker with 2 threads, against an Executor that answers the first
apply of some plans with 503; breaker and retry budget are off. Each retry is due a second after its failure.

    paced   50 plans a second, half of which fail once: how late their retries begin, p95 at most 0.3 s
    burst   500 plans that fail at once: the worker goes on, and paced retries are on time again within 15 s
    many    6,000 retries in all: the worker's memory, scheduled tasks and prefetch count stay as they are

Exit code 1 if a bound is broken.
"""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING, Any

from benchmarks.stage.plans import paced, plan
from benchmarks.stage.program import Figures, at_most, conclude, quantile, run, shown
from benchmarks.stage.stage import default_executor, stage
from dispatcher import Dispatcher, RawObservation
from dispatcher.tasks.app import make_celery

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from benchmarks.stage.stage import Stage
    from dispatcher import FaultPlan, PlanHandle

THREADS = 2
PER_S = 50
DELAY_S = 1.0
ON_TIME_S = 0.3
WITHIN_S = 300.0
PROBES_PER_S = 5
OPTIONS = default_executor(
    circuit_breaker_enabled=False,
    retry_budget_enabled=False,
    initial_retry_delay_sec=DELAY_S,
    max_retry_delay_sec=DELAY_S,
    retry_jitter=0,
)
BOUNDS = {
    "late_p95_ms": ON_TIME_S * 1000,
    "on_time_again_s": 15.0,
    "grown_kb": 3_000,
    "scheduled": 0,
    "prefetch_grown": 0,
}
"""The most of each."""


class Load:
    """Submits plans to a stage with one worker, and sees what becomes of them."""

    def __init__(self, stage: Stage, dispatcher: Dispatcher) -> None:
        self._stage = stage
        self._dispatcher = dispatcher
        self._numbers = itertools.count()

    def plan(self, *, fails: bool) -> FaultPlan:
        """A plan of 1 s whose first apply fails, or does not."""
        return plan(next(self._numbers), 1, "/fails-once" if fails else "/succeeds")

    def at_once(self, count: int, *, fails: bool = True) -> list[PlanHandle]:
        """Submit so many plans together."""
        return list(self._dispatcher.submit_many(self.plan(fails=fails) for _ in range(count)).handles)

    def paced(self, per_s: float, seconds: float, failing: Iterable[bool]) -> list[PlanHandle]:
        """Submit plans evenly. `failing` yields, for each plan, whether its first apply fails."""
        numbers = paced(round(per_s * seconds), per_s)
        return [
            self._dispatcher.submit(self.plan(fails=fails))
            for _, fails in zip(numbers, failing, strict=False)
        ]

    def finish(self, handles: Sequence[PlanHandle]) -> None:
        """Wait for the observations of all. Raises the error of a plan that has ended with one."""
        give_up_at = time.monotonic() + WITHIN_S
        observed = [handle.result(max(0.0, give_up_at - time.monotonic())) for handle in handles]
        assert all(isinstance(each, RawObservation) for each in observed)  # noqa: S101 (else it has raised)
        if self._stage.workers_ended:
            raise RuntimeError(f"the worker has ended: {self._stage.logs()}")

    def retries(self) -> list[tuple[float, float]]:
        """For each retry so far: when it began, in seconds since 1970, and how many seconds late it was."""
        found = self._stage.ask_executor("/retries")
        return [(retried_at, retried_at - failed_at - DELAY_S) for failed_at, retried_at in found]

    def memory_kb(self) -> int:
        """Memory of the worker, once it has nothing to do."""
        self._stage.settle()
        return self._stage.worker_memory_kb()

    def scheduled(self) -> int:
        """How many tasks wait in the worker's memory."""
        return sum(map(len, self._inspect("scheduled")))

    def prefetch_count(self) -> int:
        """How many messages the worker may hold."""
        return sum(int(stats["prefetch_count"]) for stats in self._inspect("stats"))

    def _inspect(self, what: str) -> list[Any]:
        with make_celery(self._stage.settings) as app:
            answers = getattr(app.control.inspect(timeout=5), what)()
        if not answers:
            raise RuntimeError(f"the worker does not answer: {self._stage.logs()}")
        return list(answers.values())


def main(seconds: int = 10, burst: int = 500, retries: int = 6000) -> None:
    """Measure, print, and exit with 1 if a bound is broken.

    `seconds` are of the paced load, and of the one after the burst. `burst` plans fail at once.
    """
    with stage() as made, Dispatcher(made.settings) as dispatcher:
        made.start_workers(1, OPTIONS, "--concurrency", str(THREADS))
        load = Load(made, dispatcher)
        load.finish(load.at_once(20, fails=False))
        found = measure(load, seconds, burst, retries)
    conclude("retries", shown(found, on_time_again_s=1), at_most(found, BOUNDS))


def measure(load: Load, seconds: int, burst: int, retries: int) -> Figures:
    """The three parts, one after the other."""
    prefetch = load.prefetch_count()
    load.finish(load.paced(PER_S, seconds, itertools.cycle([True, False])))
    late_ms = [late * 1000 for _, late in load.retries()]
    again_s = on_time_again_s(load, burst, seconds)
    load.finish(load.at_once(burst))  # a second burst finds a worker that knows such a burst
    before_kb = load.memory_kb()
    while (count := len(load.retries())) < retries:
        load.finish(load.at_once(min(burst, retries - count)))
    return {
        "late_p50_ms": quantile(late_ms, 0.5),
        "late_p95_ms": quantile(late_ms, 0.95),
        "late_max_ms": max(late_ms),
        "on_time_again_s": again_s,
        "retries": count,
        "grown_kb": load.memory_kb() - before_kb,
        "scheduled": load.scheduled(),
        "prefetch_grown": load.prefetch_count() - prefetch,
    }


def on_time_again_s(load: Load, count: int, seconds: float) -> float:
    """How long after many failures at once the last late retry began. Other plans fail meanwhile."""
    begun = time.time()
    handles = load.at_once(count)
    load.finish(handles + load.paced(PROBES_PER_S, 2 * seconds, itertools.repeat(True)))
    return max((at - begun for at, late in load.retries() if at > begun and late > ON_TIME_S), default=0.0)


if __name__ == "__main__":
    run(main, __doc__)
