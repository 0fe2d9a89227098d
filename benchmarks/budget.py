"""What a plan costs a worker in processor time, part by part, next to the least that each part can cost.

`python -m benchmarks.budget`. Takes three minutes. Workers that do more and more of a plan are measured while
they carry out the same number of plans. A part's cost is what they use more with it than without it. So it
includes what caches, threads and the interpreter's lock add in a worker:

    message      floor: a Celery task that does nothing; today: a message for a plan that has ended
    both steps   floor: the round trips that a group shares; today: workers with a driver that makes no calls
    three calls  floor: copies of prepared requests by `requests.Session`, unchecked; today: the driver

Their sum is compared with whole workers, measured apart from these. Rounds alternate, and medians count.
What both steps consist of is measured besides, in one thread that does nothing else. `--publish` writes the
table into `docs/performance.md`.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.engine.measured_drivers import install
from benchmarks.engine.steps import ScriptedDriver, Steps
from benchmarks.queues.contenders.ours import CORES, workers
from benchmarks.stage.commands import until
from benchmarks.stage.page import description, markdown_table, rewrite
from benchmarks.stage.plans import carry_out, plan
from benchmarks.stage.program import print_table, run
from benchmarks.stage.stage import default_executor, stage
from dispatcher import Dispatcher, ExecutorClientConfig
from dispatcher.tasks.app import make_celery
from dispatcher.tasks.messages import RUN_PLAN

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from benchmarks.stage.stage import Stage
    from dispatcher import FaultPlan

ROUNDS = 4
PLANS = 2_000
WARM = 200
FAULT_S = 1.1
GROUP = 32
GROUPS = 20
NOTHING = "benchmarks.nothing"
EMPTY_TASK = "benchmarks.engine.empty_task"
OURS = "workers.app"
NUMBERS = itertools.count()
PACKAGES = ["celery", "redis", "requests"]


@dataclass(frozen=True)
class Part:
    """A part of what a plan costs, in microseconds of processor time."""

    name: str
    floor_us: float
    today_us: float

    @property
    def cells(self) -> list[str]:
        """Name, floor, today, and by how much today's cost exceeds the floor."""
        figures = (self.floor_us, self.today_us, self.today_us - self.floor_us)
        return [self.name, *(f"{figure:,.0f}" for figure in figures)]


def main(*, publish: bool = False) -> None:
    """Measure, print, publish."""
    with stage() as made:
        install(made.folder)
        costs = measured(made)
        alone, trip_us = steps(made)
    parts = parts_of(costs, 4 * trip_us / GROUP)
    total = Part("sum of the parts", sum(p.floor_us for p in parts), sum(p.today_us for p in parts))
    rows = [part.cells for part in (*parts, total)]
    rows.append(["a whole plan, measured apart", "", f"{costs['whole']:,.0f}", ""])
    rows.append(["", "", "", ""])
    rows += [[f"in one thread: {name}", "", f"{cost:,.0f}", ""] for name, cost in alone.items()]
    header = ["Of a plan, µs of processor time of workers", "floor", "today", "distance"]
    print_table(header, rows)
    if publish:
        table = markdown_table(header, [row for row in rows if row[0]])
        rewrite("budget", f"{description(PACKAGES)}\n\n{table}")
    print(
        f"budget: sum_us={total.today_us:.0f} floor_us={total.floor_us:.0f} whole_us={costs['whole']:.0f} "
        f"share={total.today_us / costs['whole']:.2f}"
    )


def parts_of(costs: Mapping[str, float], trips_us: float) -> list[Part]:
    """The parts, from what workers use that do more and more. `trips_us` is the floor of both steps."""
    return [
        Part("a Celery message", costs["empty"], costs["ended"]),
        Part("both steps", trips_us, costs["no_calls"] - costs["ended"]),
        Part(
            "three HTTP calls",
            costs["plain_calls"] - costs["no_calls"],
            costs["faults_api"] - costs["no_calls"],
        ),
    ]


def measured(made: Stage) -> dict[str, float]:
    """The cost of a plan, or of a message, in workers that do more and more. Medians of all rounds."""
    found: dict[str, list[float]] = defaultdict(list)
    kinds: dict[str, Callable[[], float]] = {
        "empty": lambda: messages(made, EMPTY_TASK, NOTHING),
        "ended": lambda: messages(made, OURS, RUN_PLAN),
        "no_calls": lambda: plans(made, "no_calls"),
        "plain_calls": lambda: plans(made, "plain_calls"),
        "faults_api": lambda: plans(made, "faults_api"),
        "whole": lambda: plans(made, "faults_api"),
    }
    for number in range(ROUNDS):
        for kind in list(kinds)[:: 1 if number % 2 == 0 else -1]:
            found[kind].append(kinds[kind]())
            print(f"{kind}: {found[kind][-1]:.0f} us", flush=True)
    return {kind: statistics.median(costs) for kind, costs in found.items()}


def plans(made: Stage, driver: str) -> float:
    """Of a plan, in workers with this driver."""
    start_workers(made, OURS, driver)
    with Dispatcher(made.settings) as dispatcher:
        carry_out(dispatcher, some(WARM))
        return without_workers(made, lambda: carry_out(dispatcher, some(PLANS)))


def messages(made: Stage, app: str, task: str) -> float:
    """Of a message for a task that has nothing to do."""
    with Dispatcher(made.settings) as dispatcher, make_celery(made.settings) as client:
        start_workers(made, OURS, "no_calls")
        ended = carry_out(dispatcher, some(WARM))
        made.settle()
        if app != OURS:
            stop_workers(made)
            start_workers(made, app, "no_calls")

        def send(count: int) -> None:
            for task_id in itertools.islice(itertools.cycle(ended), count):
                client.send_task(task, args=[task_id], task_id=task_id, ignore_result=True)
            with made.redis_client() as redis:
                until(lambda: redis.llen(made.settings.queue) == 0)

        send(WARM)
        return without_workers(made, lambda: send(PLANS))


def without_workers(made: Stage, act: Callable[[], object]) -> float:
    """Processor time of all workers for one of `PLANS`. They are gone afterwards."""
    made.settle()
    before_s = made.cpu_s()["workers"]
    act()
    made.settle()
    used_s = made.cpu_s()["workers"] - before_s
    stop_workers(made)
    return used_s / PLANS * 1e6


def start_workers(made: Stage, app: str, driver: str) -> None:
    """One for each core, set up as for a comparison with other queues."""
    environment = made.environment | default_executor(driver=driver) | {"PYTHONPATH": str(made.folder)}
    made.add_workers(workers(len(CORES), environment, app))


def stop_workers(made: Stage) -> None:
    """End them at once; they have nothing to do."""
    while made.workers:
        made.workers.pop().kill()


def some(count: int) -> list[FaultPlan]:
    """So many plans of 1 s, each with a target of its own."""
    return [plan(next(NUMBERS), 1) for _ in range(count)]


def steps(made: Stage) -> tuple[dict[str, float], float]:
    """What both steps consist of, in one thread that does nothing else; and one round trip to Redis."""
    engine = Steps(made.settings, ExecutorClientConfig(), ScriptedDriver())
    engine.begin(engine.submit(1))
    groups = [engine.submit(GROUP) for _ in range(GROUPS)]
    began = [spent(engine, lambda ids=ids: engine.begin(ids)) for ids in groups]  # type: ignore[misc]
    time.sleep(FAULT_S)
    ended = [spent(engine, lambda: engine.go_on(GROUP)) for _ in groups]
    engine.close()
    alone = {
        name: sum(min(group[name] for group in turn) for turn in (began, ended)) / GROUP for name in began[0]
    }
    with made.redis_client() as client:
        trip_us = min(once_us(lambda: client.eval("return {}", 0)) for _ in range(GROUP))
    return alone, trip_us


def spent(engine: Steps, act: Callable[[], object]) -> dict[str, float]:
    """What one group of steps consists of, in microseconds."""
    act()
    return dict(engine.spent_us)


def once_us(act: Callable[[], object]) -> float:
    """Processor time of this thread, in microseconds."""
    begun_s = time.process_time()
    act()
    return (time.process_time() - begun_s) * 1e6


if __name__ == "__main__":
    run(main, __doc__)
