"""How late retries begin, and what many of them leave behind in a worker.

`python -m benchmarks.retries`. One worker with 2 threads, against an Executor that answers the first apply of
some plans with 503; breaker and retry budget are off, and each retry is due a second after its failure.

    paced   50 plans a second, half of which fail once: how late their retries begin, p95 at most 0.3 s
    burst   500 plans that fail at once: the worker goes on, and paced retries are on time again within 15 s
    many    6,000 retries in all: the worker's memory, scheduled tasks and prefetch count stay as they are

Exit code 1 if a bound is broken.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.queues.measurements import settle
from benchmarks.stage import celery_worker, stage
from benchmarks.stage.figures import quantile
from benchmarks.stage.plans import plan
from dispatcher import Dispatcher, RawObservation
from dispatcher.tasks.app import make_celery

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from benchmarks.stage import Stage
    from dispatcher import FaultPlan, PlanHandle

THREADS = 2
PER_S = 50
DELAY_S = 1.0
ON_TIME_S = 0.3
ON_TIME_AGAIN_S = 15.0
GROWN_KB = 3_000
WITHIN_S = 300.0
PROBES_PER_S = 5
EXECUTOR = "DISPATCHER_EXECUTORS__DEFAULT__"
OPTIONS = {
    f"{EXECUTOR}CIRCUIT_BREAKER_ENABLED": "false",
    f"{EXECUTOR}RETRY_BUDGET_ENABLED": "false",
    f"{EXECUTOR}INITIAL_RETRY_DELAY_SEC": str(DELAY_S),
    f"{EXECUTOR}MAX_RETRY_DELAY_SEC": str(DELAY_S),
    f"{EXECUTOR}RETRY_JITTER": "0",
}


@dataclass
class Found:
    """The figures of a run."""

    late_s: Sequence[float]
    """How late each retry of the paced load began."""

    on_time_again_s: float
    """How long after 500 failures the last retry began that was late."""

    retries: int
    grown_kb: int
    """By how much the worker has grown over the last 5,000 retries or so."""

    scheduled: int
    """Tasks that wait in the worker's memory at the end, when all plans have ended."""

    prefetch_grown: int

    def __str__(self) -> str:
        p50, p95, most = (quantile(self.late_s, share) * 1000 for share in (0.5, 0.95, 1))
        return (
            f"late_p50_ms={p50:.0f} late_p95_ms={p95:.0f} late_max_ms={most:.0f} "
            f"on_time_again_s={self.on_time_again_s:.1f} retries={self.retries} grown_kb={self.grown_kb} "
            f"scheduled={self.scheduled} prefetch_grown={self.prefetch_grown}"
        )

    @property
    def broken(self) -> list[str]:
        """The bounds that are broken."""
        held = {
            f"p95 of the delay at most {ON_TIME_S} s": quantile(self.late_s, 0.95) <= ON_TIME_S,
            f"on time again within {ON_TIME_AGAIN_S:.0f} s": self.on_time_again_s <= ON_TIME_AGAIN_S,
            f"grown by at most {GROWN_KB} KB": self.grown_kb <= GROWN_KB,
            "no scheduled task left": self.scheduled == 0,
            "prefetch count as before": self.prefetch_grown == 0,
        }
        return [bound for bound, is_held in held.items() if not is_held]


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
        begun, handles = time.monotonic(), []
        for number, fails in enumerate(itertools.islice(failing, round(per_s * seconds))):
            time.sleep(max(0.0, begun + number / per_s - time.monotonic()))
            handles.append(self._dispatcher.submit(self.plan(fails=fails)))
        return handles

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
        settle(self._stage)
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


def main() -> None:
    """Measure, print, and exit with 1 if a bound is broken."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.retries", description=__doc__)
    parser.add_argument(
        "--seconds", type=int, default=10, help="of the paced load, and of the one after the burst"
    )
    parser.add_argument("--burst", type=int, default=500, help="plans that fail at once")
    parser.add_argument("--retries", type=int, default=6000, help="in all")
    options = parser.parse_args()
    with stage() as made, Dispatcher(made.settings) as dispatcher:
        environment = made.environment | OPTIONS
        made.add_workers([celery_worker("workers.app", 0, environment, "--concurrency", str(THREADS))])
        load = Load(made, dispatcher)
        load.finish(load.at_once(20, fails=False))  # the worker is up
        found = measure(load, options)
    for bound in found.broken:
        print(f"BOUND BROKEN: {bound}")
    print(f"retries: {found}")
    sys.exit(int(bool(found.broken)))


def measure(load: Load, options: argparse.Namespace) -> Found:
    """The three parts, one after the other."""
    prefetch = load.prefetch_count()
    load.finish(load.paced(PER_S, options.seconds, itertools.cycle([True, False])))
    late_s = [late for _, late in load.retries()]
    on_time_again_s = burst(load, options.burst, options.seconds)
    load.finish(load.at_once(options.burst))  # a second burst finds a worker that knows such a burst
    before_kb = load.memory_kb()
    while (count := len(load.retries())) < options.retries:
        load.finish(load.at_once(min(options.burst, options.retries - count)))
    grown_kb, prefetch_grown = load.memory_kb() - before_kb, load.prefetch_count() - prefetch
    return Found(late_s, on_time_again_s, count, grown_kb, load.scheduled(), prefetch_grown)


def burst(load: Load, count: int, seconds: float) -> float:
    """How long after many failures at once the last late retry began. Other plans fail meanwhile."""
    begun = time.time()
    handles = load.at_once(count)
    load.finish(handles + load.paced(PROBES_PER_S, 2 * seconds, itertools.repeat(True)))
    return max((at - begun for at, late in load.retries() if at > begun and late > ON_TIME_S), default=0.0)


if __name__ == "__main__":
    main()
