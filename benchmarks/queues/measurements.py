"""The measurements. Each function carries out a case in a process of its own, and returns plain figures."""

from __future__ import annotations

import os
import signal
import statistics
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import psutil

from benchmarks.queues.contenders import OURS, open_contender
from benchmarks.stage.commands import Command, free_port, python, until
from benchmarks.stage.plans import paced
from benchmarks.stage.program import Figures, quantile
from benchmarks.stage.stage import STUB, stage
from benchmarks.stage.stub_executor import applied_at

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.queues.contenders.base import Base, Ended
    from benchmarks.stage.stage import Stage

GIVE_UP_S = 120.0
WARM_NUMBERS = 1_000_000
"""The targets of plans that warm up have numbers from here on."""

BACKGROUND_NUMBERS = 2_000_000
FIRST_APPLIES = 10
ARRIVALS_PER_S = 100
PATIENCE_S = 15.0
"""How long plans are waited for after a kill and the end of their faults."""

REDIS_AWAY_S = 3.0
IDLE_FOR_S = 10.0
LONG_S = 3600
"""How long plans last that are only to be in flight."""


@dataclass(frozen=True)
class Case:
    """What is measured once: of which contender, with which plans, on what."""

    contender: str = OURS
    plans: int = 4_000
    duration_s: int = 1
    warm: int = 300
    """Plans of 1 s that go through the fleet before."""

    workers: int = 2
    threads: int | None = None
    delay_ms: int = 0
    """How long the Executor takes for each answer."""

    trace_bytes: int = 0
    """Size of the traces in each observation."""

    flower: bool = False
    """Whether Flower watches, so that workers send events."""

    redis: bool = False
    """Whether Redis is killed, and not a worker."""

    background: tuple[int, ...] = ()
    """How many other plans are in flight meanwhile, step by step."""


class Usage:
    """Processor time and traffic of Redis from now on, by what uses it."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._before, self._traffic = stage.cpu_s(), redis_traffic(stage)
        self._machine_s, self._begun = machine_s(), time.monotonic()

    def figures(self, plans: int) -> Figures:
        """Milliseconds for each plan, and the share of the machine that other programs use."""
        cores_s = (time.monotonic() - self._begun) * (os.cpu_count() or 1)
        machine = machine_s() - self._machine_s
        used = {part: spent_s - self._before[part] for part, spent_s in self._stage.cpu_s().items()}
        each = {f"cpu_ms_{part}": spent_s / plans * 1000 for part, spent_s in used.items()}
        ours = used["workers"] + used["store"] + used["submitter"]
        return each | {
            "share_others": max(0.0, machine - sum(used.values())) / cores_s,
            "cpu_ms": ours / plans * 1000,
            "redis_bytes": (redis_traffic(self._stage) - self._traffic) / plans,
        }


def at_once(case: Case) -> Figures:
    """Plans submitted at once: from the first call to the last observation."""
    with fleet(case) as (made, contender):
        return through(case, made, contender)


def through(case: Case, made: Stage, contender: Base, begin: int = 0) -> Figures:
    """The same on a fleet that runs already. `begin` is the number of the first plan."""
    plans = [contender.plan(begin + number, case.duration_s) for number in range(case.plans)]
    kept = redis_memory(made)
    usage, begun = Usage(made), time.time()
    submitted = contender.submit_many(plans)
    observed = contender.wait(submitted, GIVE_UP_S)
    ended = time.time()
    if observed < case.plans:
        ended = max((each.at for each in contender.endings(submitted) if each), default=ended)
    return usage.figures(case.plans) | {
        "per_s": observed / (ended - begun),
        "took_s": ended - begun,
        "without_wait_per_s": observed / (ended - begun - case.duration_s),
        "kept_kb": (redis_memory(made) - kept) / 1024 / case.plans,
        "workers_mb": made.worker_memory_kb() / 1024,
        "mb_per_s": observed * case.trace_bytes / 1e6 / (ended - begun),
        "missing": case.plans - observed,
    }


def steady(case: Case) -> Figures:
    """How long after its fault's end a plan is observed, at a steady arrival.

    Plans arrive whether or not those before have been carried out. Before that, single plans show how soon an
    idle fleet applies them. Those that end after the last arrival are not counted.
    """
    with fleet(case) as (_, contender):
        first_ms = []
        for number in range(FIRST_APPLIES):
            sent_at = time.time()
            handle = [contender.submit(contender.plan(number, 1))]
            contender.wait(handle, GIVE_UP_S)
            first_ms += [
                (applied_at(each.apply_id) - sent_at) * 1000 for each in contender.endings(handle) if each
            ]
        plans = [contender.plan(FIRST_APPLIES + number, case.duration_s) for number in range(case.plans)]
        submitted = [contender.submit(plans[number]) for number in paced(case.plans, ARRIVALS_PER_S)]
        counted = submitted[: max(case.plans - ARRIVALS_PER_S * case.duration_s, case.plans // 3)]
        contender.wait(counted, case.duration_s + 2.0)
        found = contender.endings(counted)
    lags_ms = [late(each, case.duration_s) * 1000 for each in found if each]
    return {
        "p50_ms": quantile(lags_ms, 0.5),
        "p95_ms": quantile(lags_ms, 0.95),
        "p99_ms": quantile(lags_ms, 0.99),
        "first_apply_ms": statistics.median(first_ms),
        "missing": found.count(None),
    }


def submission(case: Case) -> Figures:
    """Plans submitted in a second, many in one call and one by one, while no worker takes processor time."""
    with stage() as made, opened(case, made) as contender:
        warm = [contender.plan(WARM_NUMBERS + number, 1) for number in range(case.warm)]
        contender.submit_many(warm)
        plans = [contender.plan(number, 1) for number in range(case.plans)]
        begun = time.monotonic()
        contender.submit_many(plans)
        many_s, begun = time.monotonic() - begun, time.monotonic()
        singles = [contender.plan(case.plans + number, 1) for number in range(case.plans // 8)]
        for plan in singles:
            contender.submit(plan)
        return {"per_s": len(plans) / many_s, "singly_per_s": len(singles) / (time.monotonic() - begun)}


def killed(case: Case) -> Figures:
    """kill -9 of a worker, or of Redis, while all plans are in flight and no call is under way.

    A supervisor starts the worker again at once; Redis is back after 3 s. A plan is late by the time from its
    fault's end, by the first apply, to its observation.
    """
    with fleet(case) as (made, contender):
        before = made.counts()
        submitted = contender.submit_many([contender.plan(n, case.duration_s) for n in range(case.plans)])
        until(lambda: made.counts()["faults"] - before["faults"] >= case.plans)
        if case.redis:
            made.redis.kill()
            time.sleep(REDIS_AWAY_S)
            made.start()
        else:
            os.kill(victim(made), signal.SIGKILL)
        with made.supervised():
            contender.wait(submitted, case.duration_s + PATIENCE_S)
        found = contender.endings(submitted)
        late_s = [late(each, case.duration_s) for each in found if each]
        return {
            "ended": len(late_s),
            "lost": found.count(None),
            "lost_percent": 100 * found.count(None) / case.plans,
            "late_p50_s": quantile(late_s, 0.5),
            "late_max_s": max(late_s, default=float("nan")),
            "doubled": made.counts()["doubled"] - before["doubled"],
        }


def in_flight(case: Case) -> Figures:
    """The cost of the same plans while more and more others are in flight, and what those take in memory.

    The figures of each step have names like `cpu_ms@20,000`.
    """
    figures: Figures = {}
    with fleet(case) as (made, contender):
        workers_kb, redis = made.worker_memory_kb(), redis_memory(made)
        already, waiting = made.counts()["in_flight"], 0
        for turn, size in enumerate(case.background):
            numbers = range(BACKGROUND_NUMBERS + waiting, BACKGROUND_NUMBERS + size)
            contender.submit_many([contender.plan(number, LONG_S) for number in numbers])
            waiting = size
            until(lambda: made.counts()["in_flight"] - already >= waiting, GIVE_UP_S * 10)  # noqa: B023 (at once)
            made.settle()
            grown_kb, redis_kb = made.worker_memory_kb() - workers_kb, (redis_memory(made) - redis) / 1024
            found = through(case, made, contender, begin=turn * case.plans)
            found |= {"workers_grown_mb": grown_kb / 1024, "redis_kb": redis_kb / size}
            figures |= {f"{name}@{size:,}": value for name, value in found.items()}
    return figures


def kept(case: Case) -> Figures:
    """By how much plans that have ended let the workers' memory grow, once others have gone through."""
    with fleet(case) as (made, contender):
        through(replace(case, plans=case.plans // 5), made, contender)
        made.settle()
        before_kb = made.worker_memory_kb()
        found = through(case, made, contender, begin=case.plans)
        made.settle()
        return found | {"left_kb": made.worker_memory_kb() - before_kb}


def idle(case: Case) -> Figures:
    """What a worker costs that has nothing to do."""
    with fleet(case) as (made, _):
        usage, before = Usage(made), made.redis_says("stats")["total_commands_processed"]
        time.sleep(IDLE_FOR_S)
        commands = made.redis_says("stats")["total_commands_processed"] - before
        return {
            "cpu_percent": usage.figures(1)["cpu_ms_workers"] / 10 / IDLE_FOR_S / case.workers,
            "commands_per_s": commands / IDLE_FOR_S / case.workers,
        }


@contextmanager
def fleet(case: Case) -> Iterator[tuple[Stage, Base]]:
    """A stage with workers that have carried out some plans, and the contender that has submitted them."""
    serves = [*STUB, str(case.trace_bytes), str(case.delay_ms)]
    with stage(serves) as made, opened(case, made) as contender:
        made.add_workers(contender.workers(case.workers))
        if case.flower:
            made.add_servers([flower(made)])
        warm(contender, case.warm)
        made.settle()
        yield made, contender


def opened(case: Case, made: Stage) -> Base:
    """The contender of a case."""
    return open_contender(case.contender, made, case.threads, max(case.plans, case.warm))


def flower(made: Stage) -> Command:
    """Flower, which turns events on."""
    options = ["--address=127.0.0.1", f"--port={free_port()}", "--loglevel=WARNING"]
    return python("celery", "--app", "workers.app", "flower", *options, environment=made.environment)


def warm(contender: Base, count: int) -> None:
    """Carry out `count` short plans."""
    plans = [contender.plan(WARM_NUMBERS + number, 1) for number in range(count)]
    if not contender.wait(contender.submit_many(plans), GIVE_UP_S):
        raise RuntimeError("the contender does not carry out plans")


def late(ended: Ended, duration_s: float) -> float:
    """How long after its fault's end a plan ended."""
    return ended.at - applied_at(ended.apply_id) - duration_s


def victim(made: Stage) -> int:
    """The worker process that has worked most, which is not one that merely starts others."""
    spent = {pid: cpu for worker in made.workers for pid, cpu in worker.cpu_s_by_process().items()}
    return max(spent, key=lambda pid: spent[pid])


def redis_memory(made: Stage) -> int:
    """Bytes that Redis's data take."""
    return int(made.redis_says("memory")["used_memory_dataset"])


def redis_traffic(made: Stage) -> int:
    """Bytes that Redis has received and sent so far."""
    stats = made.redis_says("stats")
    return int(stats["total_net_input_bytes"] + stats["total_net_output_bytes"])


def machine_s() -> float:
    """Processor time that everything on this machine has used so far."""
    used = psutil.cpu_times()
    return float(used.user + used.nice + used.system + used.irq + used.softirq + used.steal)
