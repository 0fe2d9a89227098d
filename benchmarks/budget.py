"""What a plan costs a worker in processor time, part by part, next to the least that each part can cost.

`python -m benchmarks.budget`. Takes about a minute. Each part is measured by itself, in one thread. Their sum
is compared with what a whole worker uses for a plan. Blocks of calls take turns, and the least of all counts,
because other programs only add to it.

    message   floor: a Celery task that does nothing, in a worker with the same settings
              today: a message for a plan that has ended, which a worker looks up in vain
    http      floor: copies of prepared requests over `requests.Session.send`, one after the other
              today: the driver's apply, status and metrics, with checks of what the Executor answers
    steps     floor: the same calls of scripts, from one connection; today: both steps of a plan, claimed and
              settled in groups, with a driver that answers at once
"""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import requests
from rich.console import Console
from rich.table import Table

from benchmarks.measurements import settle
from benchmarks.plans import body, plan
from benchmarks.stage import celery_worker, stage, until
from benchmarks.steps import ScriptedDriver, Steps
from dispatcher import Dispatcher, ExecutorClientConfig
from dispatcher.tasks.app import make_celery
from dispatcher.tasks.messages import RUN_PLAN
from workers.drivers.faults_api import FaultsApiDriver

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from celery import Celery

    from benchmarks.stage import Stage

BLOCKS = 9
CALLS = 60
GROUP = 32
GROUPS = 8
WARM = 200
PLANS = 1_000
WITHIN_S = 120.0
FAULT_S = 1.1
NOTHING = "benchmarks.nothing"
EMPTY_TASK = "benchmarks.empty_task"
NUMBERS = itertools.count()


@dataclass(frozen=True)
class Part:
    """A part of what a plan costs, in microseconds of processor time."""

    name: str
    floor_us: float
    today_us: float

    @property
    def distance_us(self) -> float:
        """By how much today's cost exceeds the floor."""
        return self.today_us - self.floor_us


def main() -> None:
    """Measure and print."""
    with stage() as made:
        message, whole_us = messages(made)
        parts = [message, http(made.executor_url), steps(made)]
    alone = Part("sum of the parts", sum(p.floor_us for p in parts), sum(p.today_us for p in parts))
    table = Table("µs of a worker for each plan", "floor", "today", "distance")
    for part in (*parts, alone):
        figures = (part.floor_us, part.today_us, part.distance_us)
        table.add_row(part.name, *(f"{figure:,.0f}" for figure in figures))
    table.add_row("more, because threads take turns", "", f"{whole_us - alone.today_us:,.0f}", "")
    table.add_row("a whole plan", "", f"{whole_us:,.0f}", "")
    Console(width=100).print(table)
    print(
        f"budget: sum_us={alone.today_us:.0f} floor_us={alone.floor_us:.0f} whole_us={whole_us:.0f} "
        f"share={alone.today_us / whole_us:.2f}"
    )


def messages(made: Stage) -> tuple[Part, float]:
    """A message that begins nothing; and whole plans, in a worker that has carried out some."""
    with Dispatcher(made.settings) as dispatcher, make_celery(made.settings) as app:
        made.add_workers([celery_worker("workers.app", 0, made.environment)])
        carry_out(dispatcher, WARM)
        ids: list[str] = []
        whole_us = _cpu_us(made, lambda: ids.extend(carry_out(dispatcher, PLANS)))
        today_us = _cpu_us(made, lambda: send(made, app, RUN_PLAN, ids))
        made.workers.pop().kill()
        made.add_workers([celery_worker(EMPTY_TASK, 0, made.environment)])
        send(made, app, NOTHING, ids[:WARM])
        floor_us = _cpu_us(made, lambda: send(made, app, NOTHING, ids))
        made.workers.pop().kill()
    return Part("message", floor_us, today_us), whole_us


def carry_out(dispatcher: Dispatcher, count: int) -> list[str]:
    """Carry out so many plans of 1 s. Returns their ids."""
    batch = dispatcher.submit_many(plan(next(NUMBERS), 1) for _ in range(count))
    batch.results(WITHIN_S)
    return [handle.id for handle in batch.handles]


def send(made: Stage, app: Celery, name: str, ids: Sequence[str]) -> None:
    """Send the task once for each id, and return when all have run."""
    for task_id in ids:
        app.send_task(name, args=[task_id], task_id=task_id, ignore_result=True)
    with made.redis_client() as client:
        until(lambda: client.llen(made.settings.queue) == 0)
    settle(made)


def http(url: str) -> Part:
    """Three calls."""
    driver, session = FaultsApiDriver(ExecutorClientConfig(base_url=url), 1), requests.Session()
    session.trust_env = False
    of_a_plan = [
        requests.Request("POST", f"{url}/v1/faults/apply", json=body(1)),
        *(requests.Request("GET", f"{url}/v1/faults/f1-1.0/{what}") for what in ("status", "metrics")),
    ]
    prepared = [request.prepare() for request in of_a_plan]

    def theirs() -> None:
        for request in prepared:
            session.send(request.copy(), timeout=(5, 30))

    def ours() -> None:
        driver.apply(plan_of_one, "key", 30.0, datetime.now(UTC))
        driver.status("f1-1.0", 30.0)
        driver.metrics("f1-1.0", 30.0)

    plan_of_one = plan(1)
    pairs = [(_block_us(theirs), _block_us(ours)) for _ in range(BLOCKS)]
    session.close()
    driver.close()
    return Part("http", *map(min, zip(*pairs, strict=True)))


def steps(made: Stage) -> Part:
    """Both steps, without HTTP; and the round trips behind them."""
    engine = Steps(made.settings, ExecutorClientConfig(), ScriptedDriver())
    engine.begin(engine.submit(1))
    groups = [engine.submit(GROUP) for _ in range(GROUPS)]
    began_us = min(_once_us(lambda ids=ids: engine.begin(ids)) for ids in groups)  # type: ignore[misc]
    time.sleep(FAULT_S)
    ended_us = min(_once_us(lambda: engine.go_on(GROUP)) for _ in groups)
    engine.close()
    with made.redis_client() as client:
        trip_us = min(_once_us(lambda: client.eval("return {}", 0)) for _ in range(GROUP))
    return Part("steps", 4 * trip_us / GROUP, (began_us + ended_us) / GROUP)


def _cpu_us(made: Stage, act: Callable[[], object]) -> float:
    """Processor time of the workers for one of `PLANS` plans or messages."""
    settle(made)
    before_s = made.cpu_s()["workers"]
    act()
    settle(made)
    return (made.cpu_s()["workers"] - before_s) / PLANS * 1e6


def _block_us(act: Callable[[], None]) -> float:
    begun = time.process_time()
    for _ in range(CALLS):
        act()
    return (time.process_time() - begun) / CALLS * 1e6


def _once_us(act: Callable[[], object]) -> float:
    begun = time.process_time()
    act()
    return (time.process_time() - begun) * 1e6


if __name__ == "__main__":
    main()
