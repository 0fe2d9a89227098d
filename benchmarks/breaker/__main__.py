"""The shared circuit breaker, side by side with two others that share their state in Redis.

`python -m benchmarks.breaker`. All run in this process, in turns, on one real Redis:

    round trips, µs   what a guarded call costs besides the call itself. Ours is guarded within a step of a
                      plan, which calls Redis anyway: its cost is that of a step with the breaker less that of
                      a step without. Not in the score: ours as a context manager, without a step
    calls             let through to a dead Executor (threshold 5) by W workers that begin together and go on
                      until they are rejected; the mean of several outages with recoveries between them
    probes            let through by W workers that ask before any of the probes comes back

A row is ahead if ours is the smallest.
"""

from __future__ import annotations

import logging
import random
import statistics
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import redis
import redis.asyncio
from rich.console import Console
from rich.table import Table

from benchmarks.breaker.contenders import (
    DOWN,
    Contender,
    InStep,
    OnItsOwn,
    Purgatory,
    Pybreaker,
    Worker,
)
from benchmarks.stage import stage
from benchmarks.stage.figures import quantile
from dispatcher import ExecutorRejectedError
from workers.engine import completer

if TYPE_CHECKING:
    from collections.abc import Callable

THRESHOLD = 5
NEVER = 10**6
CALLS = 500
ROUNDS = 6
OUTAGES = 6
CALL_S = 0.01
KINDS = ("ok", "failure", "reject")
FLEETS = (20, 50)
NO = ExecutorRejectedError("no", 400, "")


class RoundTrips:
    """Counts what is sent to Redis, from threads and from event loops."""

    def __init__(self) -> None:
        self.count = 0
        self._sync = redis.Connection.send_packed_command
        self._async = redis.asyncio.Connection.send_packed_command

    def __enter__(self) -> Self:
        counter, send, send_async = self, self._sync, self._async

        def counted(connection: redis.Connection, *args: Any, **options: Any) -> None:
            counter.count += 1
            send(connection, *args, **options)  # type: ignore[no-untyped-call]

        async def counted_async(connection: redis.asyncio.Connection, *args: Any, **options: Any) -> None:
            counter.count += 1
            await send_async(connection, *args, **options)

        redis.Connection.send_packed_command = counted  # type: ignore[method-assign, assignment]
        redis.asyncio.Connection.send_packed_command = counted_async  # type: ignore[method-assign, assignment]
        return self

    def __exit__(self, *exc_info: object) -> None:
        redis.Connection.send_packed_command = self._sync  # type: ignore[method-assign]
        redis.asyncio.Connection.send_packed_command = self._async  # type: ignore[method-assign]


@dataclass(frozen=True)
class Cost:
    """Of one guarded call."""

    round_trips: float
    microseconds: float

    def piggyback(self, other: Cost) -> Cost:
        """What it is more than another."""
        return Cost(self.round_trips - other.round_trips, self.microseconds - other.microseconds)


def main() -> None:
    """Measure and print a table. Exit code 1 unless ours is ahead in every row."""
    logging.disable(logging.CRITICAL)
    completer.GROUP_COMMIT_S = 0.0  # a step that is measured by itself waits for no others
    with stage() as made:
        url = made.redis_url
        contenders: list[Contender] = [InStep(url), Pybreaker(url), Purgatory(url)]
        extra = OnItsOwn(url)
        rows = costs(url, contenders, extra) + let_through(url, contenders) + probes(url, contenders)
    table = Table("", *(contender.name for contender in contenders), extra.name)
    for name, figures in rows:
        table.add_row(name, *(f"{figure:.3g}" for figure in figures))
    Console(width=100).print(table)
    ahead = sum(figures[0] < min(figures[1:3]) for _, figures in rows)
    print(f"breaker: ahead={ahead}/{len(rows)}")
    sys.exit(int(ahead < len(rows)))


Rows = list[tuple[str, list[float]]]


def costs(url: str, contenders: list[Contender], extra: Contender) -> Rows:
    """Round trips and time of each kind of call."""
    found = {kind: cost(url, [*contenders, extra], kind) for kind in KINDS}
    rows = [(f"round trips, {kind}", [each.round_trips for each in found[kind]]) for kind in KINDS]
    return rows + [(f"µs, {kind}", [each.microseconds for each in found[kind]]) for kind in KINDS]


def cost(url: str, contenders: list[Contender], kind: str) -> list[Cost]:
    """What a guarded call costs with each of them, less what a step of ours costs without a breaker."""
    empty(url)
    workers = [contender.worker(THRESHOLD if kind == "reject" else NEVER) for contender in contenders]
    if kind == "reject":
        for worker in workers:
            calls_until_rejected(worker, failing)
    call = {"ok": succeeding, "failure": failing, "reject": refused}[kind]
    *guarded, anyway = map(typical, in_turns([*workers, InStep(url).unguarded()], call))
    guarded[0] = guarded[0].piggyback(anyway)
    return guarded


def in_turns(workers: list[Worker], call: Callable[[], None]) -> list[list[Cost]]:
    """What each call of each worker costs. Turns are in random order, because of the processor's caches."""
    seen: list[list[Cost]] = [[] for _ in workers]
    turns = list(zip(workers, seen, strict=True))
    for _ in range(CALLS):
        random.shuffle(turns)
        for worker, costs in turns:
            with RoundTrips() as sent:
                worker.attempt(call)
            costs.append(Cost(sent.count, worker.took_s * 1e6))
    return seen


def typical(costs: list[Cost]) -> Cost:
    """The median of the round trips, and the time of the fastest tenth: other programs only add to it."""
    return Cost(
        statistics.median(each.round_trips for each in costs),
        quantile([each.microseconds for each in costs], 0.1),
    )


def let_through(url: str, contenders: list[Contender]) -> Rows:
    """Calls that reach an Executor each time that it dies: fresh, and after recoveries."""
    rows: Rows = []
    for size in FLEETS:
        counts: list[list[float]] = [[] for _ in contenders]
        for _ in range(ROUNDS):
            for contender, found in zip(contenders, counts, strict=True):
                empty(url)
                found.extend(outages(contender, size))
        rows.append((f"calls, W={size}", [statistics.mean(found) for found in counts]))
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
        if not fleet[0].attempt(succeeding):
            raise RuntimeError(f"{contender.name} sends no probe")
    return counts


def probes(url: str, contenders: list[Contender]) -> Rows:
    """Calls that go out when an open breaker's time is over, before any of them comes back."""
    rows: Rows = []
    for size in FLEETS:
        empty(url)
        rows.append((f"probes, W={size}", [float(probes_of(contender, size)) for contender in contenders]))
    return rows


def probes_of(contender: Contender, size: int) -> int:
    """How many of `size` workers send a probe."""
    fleet = [contender.worker(THRESHOLD) for _ in range(size)]
    calls_until_rejected(fleet[0], failing)
    contender.time_passes()
    asked = threading.Barrier(size)

    def ask(worker: Worker) -> bool:
        let_through = worker.attempt(lambda: void(asked.wait(60)))
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


def calls_until_rejected(worker: Worker, call: Callable[[], None]) -> int:
    """How many calls in a row are let through."""
    count = 0
    while worker.attempt(call):
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


def void(_: object) -> None:
    """Nothing."""


def empty(url: str) -> None:
    """Forget everything in a Redis that is ours."""
    with redis.Redis.from_url(url) as client:
        client.flushall()


if __name__ == "__main__":
    main()
