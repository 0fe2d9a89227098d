"""What many plans in flight cost, and how long a killed worker or a killed Redis delays them.

`python -m benchmarks.in_flight`. Two workers with default settings. Each measurement has its bound:

    worker   one of the workers is killed for good in the middle of 1,000 plans: all have ended within 10 s
    redis    Redis is killed in the middle of 1,000 plans and comes back after 3 s: all have ended within 10 s
    memory   10,000 plans of 30 s in flight add less than 20 MB to both workers together
    idle     a worker without plans uses less than 1 % of a core, and sends less than 10 commands a second
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from benchmarks import measurements
from benchmarks.contenders.ours import Ours
from benchmarks.figures import Figures, quantile
from benchmarks.gauges import Usage
from benchmarks.measurements import Scale, fleet
from benchmarks.stage import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.contenders.base import Client
    from benchmarks.stage import Stage

PLANS = 1000
REDIS_AWAY_S = 3.0
IDLE_FOR_S = 10.0
SCALE = Scale(burst=1_000, many=10_000, many_s=30)

BOUNDS: dict[str, Figures] = {
    "worker": {"late_max_s": 10.0, "missing": 0, "doubled": 0},
    "redis": {"late_max_s": 10.0, "missing": 0, "doubled": 0},
    "memory": {"workers_grown_kb": 20_000, "missing": 0},
    "idle": {"cpu_percent": 1.0, "commands_per_s": 10.0},
}


def main() -> None:
    """Run all. Exit code 1 if a bound is broken."""
    broken = [name for name in sys.argv[1:] or BOUNDS if not held(name)]
    sys.exit(int(bool(broken)))


def held(name: str) -> bool:
    """Run one measurement and print its figures. Returns whether its bounds hold."""
    found = MEASUREMENTS[name]()
    broken = [figure for figure, bound in BOUNDS[name].items() if not found[figure] <= bound]
    shown = " ".join(f"{figure}={value:.4g}" for figure, value in found.items())
    print(f"{name}: {shown} {'BOUND BROKEN: ' + ', '.join(broken) if broken else 'ok'}", flush=True)
    return not broken


def worker() -> Figures:
    """kill -9 of one worker while it carries plans out."""
    with fleet(Ours(), PLANS, SCALE) as (stage, client):
        submitted = in_the_middle(stage, client)
        stage.workers[0].kill()
        return after(stage, client, submitted)


def redis() -> Figures:
    """kill -9 of Redis while workers carry plans out."""
    with fleet(Ours(), PLANS, SCALE) as (stage, client):
        submitted = in_the_middle(stage, client)
        stage.redis.kill()
        time.sleep(REDIS_AWAY_S)
        stage.start()
        return after(stage, client, submitted)


def memory() -> Figures:
    """What plans in flight add to the memory of workers and of Redis."""
    return measurements.memory(Ours(), SCALE)


def idle() -> Figures:
    """What a worker costs that has nothing to do."""
    with fleet(Ours(), PLANS, SCALE) as (stage, _), stage.redis_client() as client:
        usage, before = Usage(stage), client.info("stats")["total_commands_processed"]
        time.sleep(IDLE_FOR_S)
        commands = client.info("stats")["total_commands_processed"] - before
        workers = len(stage.workers)
        return {
            "cpu_percent": usage.figures(1)["cpu_ms_workers"] / 10 / IDLE_FOR_S / workers,
            "commands_per_s": commands / IDLE_FOR_S / workers,
        }


def in_the_middle(stage: Stage, client: Client) -> list[object]:
    """Submit plans of 1 s, and return once a third of them has been applied."""
    applied = stage.counts().faults
    submitted = client.submit_many([Ours().plan(number, 1) for number in range(PLANS)])
    until(lambda: stage.counts().faults - applied >= PLANS // 3)
    return list(submitted)


def after(stage: Stage, client: Client, submitted: list[object]) -> Figures:
    """How long after this moment the plans have ended."""
    begun = time.time()
    missing = len(submitted) - client.wait(submitted, 120.0)
    late_s = [ended.at - begun for ended in client.endings(submitted) if ended]
    return {
        "late_p50_s": quantile(late_s, 0.5),
        "late_p95_s": quantile(late_s, 0.95),
        "late_max_s": quantile(late_s, 1),
        "missing": missing,
        "doubled": stage.counts().doubled,
    }


MEASUREMENTS: dict[str, Callable[[], Figures]] = {
    "worker": worker,
    "redis": redis,
    "memory": memory,
    "idle": idle,
}

if __name__ == "__main__":
    main()
