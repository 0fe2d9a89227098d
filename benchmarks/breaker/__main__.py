"""The shared circuit breaker, side by side with two others that share their state in Redis.

`python -m benchmarks.breaker`. All run in this process, in turns, on one real Redis:

    round trips, µs   what a guarded call costs besides the call itself. Ours is guarded within a step of a
                      plan, which calls Redis anyway: its cost is that of a step with the breaker less that of
                      a step without. Round trips are those that a tap on the line to Redis sees
    calls             let through to a dead Executor (threshold 5) by W workers that begin together and go on
                      until they are rejected; the mean of several outages with recoveries between them
    probes            let through by W workers that ask before any of the probes comes back

A row is ahead if ours is the smallest.
"""

from __future__ import annotations

import logging
import random
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import redis

from benchmarks.breaker.contenders import CONTENDERS, DOWN, Call, Contender, Ours, Worker
from benchmarks.stage.program import Bound, conclude, print_table, quantile, run
from benchmarks.stage.stage import stage
from benchmarks.stage.tap import Tap
from dispatcher import ExecutorRejectedError
from workers.engine import completer

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.stage.stage import Stage

THRESHOLD = 5
NEVER = 10**6
CALLS = 500
COUNTED_CALLS = 60
ROUNDS = 6
OUTAGES = 6
CALL_S = 0.01
FLEETS = (20, 50)
NO = ExecutorRejectedError("no", 400, "")

Rows = dict[str, list[float]]
"""A figure of each contender, ours first, by the name of the row."""


def main() -> None:
    """Measure and print a table. Exit code 1 unless ours is ahead in every row."""
    logging.disable(logging.CRITICAL)
    completer.GROUP_COMMIT_S = 0.0  # a step that is measured by itself waits for no others
    with stage() as made:
        rows = costs(made) | let_through(made.redis_url) | probes(made.redis_url)
    shown = [[name, *(f"{figure:.3g}" for figure in figures)] for name, figures in rows.items()]
    print_table(["", *(contender.name for contender in CONTENDERS)], shown)
    ahead = sum(ours < min(others) for ours, *others in rows.values())
    conclude("breaker", f"ahead={ahead}/{len(rows)}", [Bound("rows ahead", ahead, at_least=len(rows))])


def costs(made: Stage) -> Rows:
    """Round trips and time of each kind of call."""
    calls = {"ok": succeeding, "failure": failing, "reject": refused}
    rows: Rows = {}
    with Tap(made.redis_port) as tap:
        url = f"redis://127.0.0.1:{tap.port}/0"
        for kind, call in calls.items():
            trips = cost(url, kind, call, lambda: tap.round_trips, COUNTED_CALLS)
            rows[f"round trips, {kind}"] = [statistics.median(each) for each in trips]
    for kind, call in calls.items():
        times = cost(made.redis_url, kind, call, lambda: time.perf_counter() * 1e6, CALLS)
        rows[f"µs, {kind}"] = [quantile(each, 0.1) for each in times]  # other programs only add to it
    for figures in rows.values():
        figures[0] -= figures.pop()
    return rows


def cost(url: str, kind: str, call: Call, meter: Callable[[], float], count: int) -> list[list[float]]:
    """What `meter` says of each call: of each contender, and of a worker of ours without a breaker.

    Turns are in random order, because of the processor's caches.
    """
    empty(url)
    workers = [contender(url).worker(THRESHOLD if kind == "reject" else NEVER) for contender in CONTENDERS]
    if kind == "reject":
        for worker in workers:
            calls_until_rejected(worker, failing)
    seen: list[tuple[Worker, list[float]]] = [(worker, []) for worker in (*workers, Ours(url).unguarded())]
    for _ in range(count):
        for worker, used in random.sample(seen, len(seen)):
            before = meter()
            worker(call)
            used.append(meter() - before)
    return [used for _, used in seen]


def let_through(url: str) -> Rows:
    """Calls that reach an Executor each time that it dies: fresh, and after recoveries."""
    rows: Rows = {}
    for size in FLEETS:
        counts: dict[type[Contender], list[int]] = {contender: [] for contender in CONTENDERS}
        for _ in range(ROUNDS):
            for contender, found in counts.items():
                empty(url)
                found.extend(outages(contender(url), size))
        rows[f"calls, W={size}"] = [statistics.fmean(found) for found in counts.values()]
    return rows


def outages(contender: Contender, size: int) -> list[int]:
    """How many calls `size` workers make in each of some outages, with a recovery after each."""

    def call() -> None:
        time.sleep(CALL_S)
        raise DOWN

    fleet = [contender.worker(THRESHOLD) for _ in range(size)]
    counts = []
    for _ in range(OUTAGES):
        counts.append(sum(together(fleet, lambda worker: calls_until_rejected(worker, call))))
        contender.time_passes()
        if not fleet[0](succeeding):
            raise RuntimeError(f"{contender.name} sends no probe")
    return counts


def probes(url: str) -> Rows:
    """Calls that go out when an open breaker's time is over, before any of them comes back."""
    rows: Rows = {}
    for size in FLEETS:
        empty(url)
        rows[f"probes, W={size}"] = [float(probes_of(contender(url), size)) for contender in CONTENDERS]
    return rows


def probes_of(contender: Contender, size: int) -> int:
    """How many of `size` workers send a probe."""
    fleet = [contender.worker(THRESHOLD) for _ in range(size)]
    calls_until_rejected(fleet[0], failing)
    contender.time_passes()
    asked = threading.Barrier(size)

    def probe() -> None:
        asked.wait(60)

    def ask(worker: Worker) -> bool:
        let_through = worker(probe)
        if not let_through:
            asked.wait(60)
        return let_through

    return sum(together(fleet, ask))


def together(fleet: list[Worker], act: Callable[[Worker], int]) -> list[int]:
    """Every worker acts, from a thread of its own, behind one barrier."""
    begin = threading.Barrier(len(fleet))

    def run(worker: Worker) -> int:
        begin.wait()
        return act(worker)

    with ThreadPoolExecutor(len(fleet)) as pool:
        return list(pool.map(run, fleet))


def calls_until_rejected(worker: Worker, call: Call) -> int:
    """How many calls in a row are let through."""
    count = 0
    while worker(call):
        count += 1
    return count


def succeeding() -> None:
    """A call."""


def failing() -> None:
    """A call to an Executor that is down."""
    raise DOWN


def refused() -> None:
    """A call to an Executor that answers no."""
    raise NO


def empty(url: str) -> None:
    """Forget everything in a Redis that is ours."""
    with redis.Redis.from_url(url) as client:
        client.flushall()


if __name__ == "__main__":
    run(main, __doc__)
