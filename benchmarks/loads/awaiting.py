"""What awaiting many plans costs one asyncio process: connections, blocks of its event loop, memory.

`python -m benchmarks.loads.awaiting`. One worker. Each plan is submitted and awaited by a task of its own,
all at once. Exit code 1 if a bound is broken.

    connections       of this process to Redis, at most
    longest_block_ms  by how much the loop was late at most, at a task that sleeps for 5 ms. Time in which
                      other programs had the processor does not count, if Linux says how much that was.
    memory_kb         by how much this process has grown while all plans were awaited
    known_after_ms    from a plan's end in the ledger to its awaiting task: the median
"""

from __future__ import annotations

import asyncio
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import psutil

from benchmarks.stage.plans import plan
from benchmarks.stage.program import Figures, at_most, conclude, run, shown
from benchmarks.stage.stage import stage
from dispatcher import Dispatcher

if TYPE_CHECKING:
    from benchmarks.stage.stage import Stage
    from dispatcher import FaultPlan, PlanHandle

TICK_S = 0.005
DURATION_S = 5
WITHIN_S = 120.0
COUNT_EVERY_S = 0.25
WARM_UP = 50

BOUNDS = {"connections": 10.0, "longest_block_ms": 50.0, "known_after_ms": 50.0}
"""The most of each."""


@dataclass(frozen=True)
class Moment:
    """A moment, and what the loop's thread and the others have done until then, in seconds."""

    at_s: float
    ran_s: float
    """Processor time of the loop's thread."""

    denied_s: float
    """For how long it could have run, and other programs had the processor."""

    others_denied_s: float
    """The same of all other threads, one of which may have had the interpreter's lock meanwhile."""

    @classmethod
    def now(cls) -> Self:
        """To be called by the loop's thread."""
        own = Path("/proc/thread-self").resolve()
        denied = {entry.name: denied_s(entry) for entry in Path("/proc/self/task").iterdir()}
        own_s = denied.pop(own.name, 0.0)
        return cls(time.monotonic(), time.thread_time(), own_s, sum(denied.values()))

    def blocked_since(self, before: Moment) -> float:
        """How much of the time since then, except for a tick, the loop ran one step or was blocked."""
        ran_s = self.ran_s - before.ran_s
        stood_s = self.at_s - before.at_s - ran_s - (self.denied_s - before.denied_s) - TICK_S
        return ran_s + max(0.0, stood_s - (self.others_denied_s - before.others_denied_s))


@dataclass
class Gauges:
    """What a task of the loop sees, again and again."""

    redis_port: int
    connections: int = 0
    longest_block_s: float = 0.0
    memory_kb: int = 0

    async def tick(self) -> None:
        """Measure how late the loop is, until cancelled."""
        while True:
            before = Moment.now()
            await asyncio.sleep(TICK_S)
            self.longest_block_s = max(self.longest_block_s, Moment.now().blocked_since(before))

    async def count(self) -> None:
        """Measure the rest in a thread, until cancelled."""
        while True:
            self.connections = max(self.connections, await asyncio.to_thread(connections, self.redis_port))
            self.memory_kb = max(self.memory_kb, memory_kb())
            await asyncio.sleep(COUNT_EVERY_S)


def main(plans: int = 1000) -> None:
    """Measure, print, and exit with 1 if a bound is broken."""
    with stage() as made:
        made.start_workers(1)
        found = asyncio.run(measure(made, plans))
    bounds = at_most(found, BOUNDS)
    print(f"known_after_ms={found.pop('known_after_ms'):.0f}")
    conclude("awaiting", f"plans={plans} {shown(found)}", bounds)


async def measure(made: Stage, plans: int) -> Figures:
    """The figures. Raises `ExecutorClientError` if a plan has no observation."""
    gauges = Gauges(made.redis_port)
    async with Dispatcher(made.settings) as dispatcher:
        await asyncio.gather(*(await_one(dispatcher, plan(n, 1, "/warm")) for n in range(WARM_UP)))
        before_kb = memory_kb()
        measuring = [asyncio.create_task(gauges.tick()), asyncio.create_task(gauges.count())]
        submitted = [plan(number, DURATION_S) for number in range(plans)]
        await asyncio.sleep(0)
        known = await asyncio.gather(*(await_one(dispatcher, each) for each in submitted))
        for task in measuring:
            task.cancel()
        late_s = [at - await ended_at(handle) for handle, at in known]
    return {
        "connections": gauges.connections,
        "longest_block_ms": gauges.longest_block_s * 1000,
        "memory_kb": gauges.memory_kb - before_kb,
        "known_after_ms": statistics.median(late_s) * 1000,
    }


async def await_one(dispatcher: Dispatcher, one: FaultPlan) -> tuple[PlanHandle, float]:
    """Submit a plan and wait for its observation; the plan, and when it was known."""
    handle = await dispatcher.submit_async(one)
    await handle.result_async(WITHIN_S)
    return handle, time.time()


async def ended_at(handle: PlanHandle) -> float:
    """When the plan ended by Redis's clock, which is this machine's."""
    ended = (await handle.status_async()).ended_at
    if ended is None:
        raise RuntimeError(f"plan {handle.id} has a result and has not ended")
    return ended.timestamp()


def denied_s(thread: Path) -> float:
    """For how long a thread could have run, and had no processor. 0 if Linux does not say."""
    try:
        return int((thread / "schedstat").read_text("ascii").split()[1]) / 1e9
    except (OSError, IndexError):  # the thread has ended
        return 0.0


def connections(port: int) -> int:
    """How many TCP connections this process has to a port."""
    every = psutil.Process().net_connections("tcp4")
    return sum(bool(each.raddr) and each.raddr.port == port for each in every)


def memory_kb() -> int:
    """Memory of this process now."""
    return psutil.Process().memory_info().rss // 1024


if __name__ == "__main__":
    run(main, __doc__)
