"""Many plans in flight: what they cost, and how long a killed worker holds them up.

`python -m benchmarks.in_flight`. Each measurement has its bound:

    lag      how long after its fault's end a plan has its observation, at 50 plans a second
    kill     the only worker is killed with 1,000 plans in flight, and started again a second later
    memory   10,000 plans of 30 s in flight: what they add to the memory of a worker and of Redis
    idle     what the wakers of 100 workers cost a Redis that has nothing to do
"""

from __future__ import annotations

import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import redis
from pydantic import SecretStr
from workers.waker import Waker

from benchmarks.chaos_campaign import Fleet, plan, spread
from benchmarks.counting_executor import Journal
from dispatcher import Dispatcher, RawObservation, Settings
from dispatcher.ledger import connect

if TYPE_CHECKING:
    from dispatcher.handles import PlanHandle

KILLED_AWAY_S = 1.0
IDLE_WAKERS = 100
IDLE_FOR_S = 10.0


def main() -> None:
    """Run all; exit code 0 where every bound holds."""
    held = [measured("lag", lag), measured("kill", kill), measured("memory", memory), measured("idle", idle)]
    sys.exit(0 if all(held) else 1)


def measured(name: str, measure: object) -> bool:
    """One measurement in a fresh fleet; whether its bound holds."""
    with tempfile.TemporaryDirectory(prefix="in-flight-") as folder:
        fleet = Fleet(Path(folder))
        try:
            told, held = measure(fleet)  # type: ignore[operator]
        finally:
            fleet.end()
    print(f"{name}: {told} {'ok' if held else 'BOUND BROKEN'}", flush=True)
    return bool(held)


def lag(fleet: Fleet) -> tuple[str, bool]:
    """A steady arrival of 50 plans a second, of 5 s each: p95 of the lag below 0.1 s."""
    handles = []
    with up(fleet) as dispatcher:
        dispatcher.submit_many([plan(10_000 + number, 1) for number in range(50)]).results(60)  # warm
        next_at = time.monotonic()
        for number in range(500):
            handles.append(dispatcher.submit(plan(number, 5)))
            next_at += 0.02
            time.sleep(max(0.0, next_at - time.monotonic()))
        delays = delays_of(fleet, handles)
    return f"p50 / p95 / max {spread(delays)} s (p95 < 0.1)", sorted(delays)[474] < 0.1


def kill(fleet: Fleet) -> tuple[str, bool]:
    """kill -9 of the only worker, a new one a second later: p95 of the added delay below 2 s."""
    with up(fleet) as dispatcher:
        batch = dispatcher.submit_many([plan(number, 15) for number in range(1000)])
        until_applied(fleet, len(batch))
        fleet.workers[0].signal(signal.SIGKILL)
        time.sleep(KILLED_AWAY_S)
        fleet.start()
        delays = delays_of(fleet, batch.handles)
    return f"added delay p50 / p95 / max {spread(delays)} s (p95 < 2)", sorted(delays)[949] < 2


def memory(fleet: Fleet) -> tuple[str, bool]:
    """10,000 plans of 30 s in flight: less than 20 MB more in the worker."""
    with up(fleet) as dispatcher, redis.Redis(port=fleet.redis_port) as client:
        dispatcher.submit_many([plan(10_000 + number, 1) for number in range(200)]).results(60)  # warm
        before_kb, before = memory_kb(fleet), client.info("memory")["used_memory"]
        begun = time.monotonic()
        batch = dispatcher.submit_many([plan(number, 30) for number in range(10_000)])
        submit_s = time.monotonic() - begun
        peak_kb, peak = before_kb, before
        while time.monotonic() - begun < 40:
            peak_kb = max(peak_kb, memory_kb(fleet))
            peak = max(peak, client.info("memory")["used_memory"])
            time.sleep(1)
        results = batch.results(120)
        all_s = time.monotonic() - begun
    observed = sum(isinstance(result, RawObservation) for result in results)
    grown_mb = (peak_kb - before_kb) / 1024
    told = (
        f"{observed} of 10000 observed after {all_s:.1f} s, submitted in {submit_s:.1f} s; "
        f"the worker grew by {grown_mb:.1f} MB (< 20), Redis by {(peak - before) / 10_000:.0f} bytes a plan"
    )
    return told, observed == len(results) and grown_mb < 20


def idle(fleet: Fleet) -> tuple[str, bool]:
    """The wakers of 100 workers, with nothing to do: below 1 % of one core in Redis."""
    fleet.redis.start()
    fleet.wait_for_redis()
    settings = Settings(redis_url=SecretStr(fleet.redis_url))
    ledger = connect(settings)
    wakers = [Waker(ledger, settings.waker, take=print) for _ in range(IDLE_WAKERS)]
    for waker in wakers:
        waker.start()
    with redis.Redis(port=fleet.redis_port) as client:
        before = cpu_s(client)
        time.sleep(IDLE_FOR_S)
        share = (cpu_s(client) - before) / IDLE_FOR_S
    for waker in wakers:
        waker.stop()
    return f"{share:.2%} of one core (< 1 %)", share < 0.01


def up(fleet: Fleet) -> Dispatcher:
    """One worker, and somebody to submit plans."""
    fleet.add_workers(
        1,
        "workers.app",
        {
            "DISPATCHER_REDIS_URL": fleet.redis_url,
            "DISPATCHER_EXECUTORS__DEFAULT__BASE_URL": fleet.executor_url,
        },
    )
    fleet.start()
    fleet.wait_for_redis()
    return Dispatcher(Settings(redis_url=SecretStr(fleet.redis_url)))


def until_applied(fleet: Fleet, count: int) -> None:
    """Returns once the Executor has `count` faults."""
    while not fleet.journal.exists() or len(Journal(fleet.journal).faults) < count:
        time.sleep(0.1)


def delays_of(fleet: Fleet, handles: list[PlanHandle]) -> list[float]:
    """For each plan, how long after its fault's end it ended, in seconds."""
    for handle in handles:
        handle.result(120)
    ends = {fault.key: fault.ends for fault in Journal(fleet.journal).faults.values()}
    statuses = [handle.status() for handle in handles]
    assert all(status.ended_at is not None for status in statuses)  # noqa: S101 (they have results)
    return [status.ended_at.timestamp() - ends[status.id] for status in statuses if status.ended_at]


def memory_kb(fleet: Fleet) -> int:
    """Resident memory of the worker."""
    process = fleet.workers[0].process
    assert process is not None  # noqa: S101 (it is up)
    lines = Path(f"/proc/{process.pid}/status").read_text("utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def cpu_s(client: redis.Redis) -> float:
    """Processor time that Redis has used."""
    used = client.info("cpu")
    return float(used["used_cpu_user"] + used["used_cpu_sys"])


if __name__ == "__main__":
    main()
