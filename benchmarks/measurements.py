"""The measurements of a contender. Each function needs a process of its own, and returns plain figures."""

from __future__ import annotations

import os
import signal
import socket
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from benchmarks.figures import Figures, quantile
from benchmarks.gauges import LOOK_EVERY_S, Memory, Usage
from benchmarks.stage import stage, until
from benchmarks.stub_executor import applied_at

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.contenders.base import Client, Contender, Ended
    from benchmarks.stage import Stage

__all__ = [
    "Scale",
    "burst",
    "executor_rate",
    "kill",
    "lag",
    "memory",
    "submit_rate",
    "throughput",
]

GIVE_UP_S = 120.0
SETTLED = 0.05
"""A worker that uses less of a core than this has nothing to do."""

WARM_NUMBERS = 1_000_000
"""The targets of plans that warm up have numbers from here on."""


@dataclass(frozen=True)
class Scale:
    """How much of everything."""

    warm: int = 300
    """Plans that go through each fleet before it is measured."""

    plans: int = 4_000
    """Of 1 s, submitted at once."""

    submitted: int = 8_000
    """Plans that are submitted while no worker runs."""

    burst: int = 4_000
    burst_s: int = 10
    per_s: int = 100
    steady_s: int = 20
    """How long each plan of the steady arrival lasts: `per_s * steady_s` are in flight."""

    killed: int = 1_000
    """Plans in flight when a worker is killed, of `burst_s` each."""

    patience_s: float = 15.0
    """How long those plans are waited for after their faults have ended."""

    many: int = 20_000
    """Plans in flight that show what one of them takes, because ours takes next to nothing."""

    many_s: int = 90

    trace_bytes: int = 0
    """Size of the traces in each observation."""

    stub_calls: int = 40_000
    """To see what the stub Executor itself can do."""


def throughput(contender: Contender, scale: Scale) -> Figures:
    """Plans of 1 s, submitted at once: from the first call to the last observation."""
    with fleet(contender, scale.plans, scale) as (stage, client):
        plans = [contender.plan(number, 1) for number in range(scale.plans)]
        redis_before = stage.redis_memory()
        usage, begun = Usage(stage), time.time()
        submitted = client.submit_many(plans)
        observed, took_s = until_observed(client, submitted, begun)
        return usage.figures(scale.plans) | {
            "per_s": observed / took_s,
            "took_s": took_s,
            "workers_kb": stage.worker_memory_kb(),
            "kept_kb_a_plan": (stage.redis_memory() - redis_before) / 1024 / scale.plans,
            "observed": observed,
            "missing": scale.plans - observed,
        }


def burst(contender: Contender, scale: Scale) -> Figures:
    """Long plans submitted at once, and what they add to the memory of workers that know such a burst."""
    with fleet(contender, scale.burst, scale) as (stage, client):
        if contender.swift:
            warm(contender, client, scale.burst)
            settle(stage)
        plans = [contender.plan(number, scale.burst_s) for number in range(scale.burst)]
        with Memory(stage) as memory:
            usage, begun = Usage(stage), time.time()
            submitted = client.submit_many(plans)
            observed, took_s = until_observed(client, submitted, begun)
            figures = usage.figures(scale.burst)
        times = {"took_s": took_s, "over_limit_s": took_s - scale.burst_s}
        return figures | memory.figures() | times | {"missing": scale.burst - observed}


def memory(contender: Contender, scale: Scale) -> Figures:
    """What very many plans add to the workers' memory, while they are in flight and once they have ended."""
    with fleet(contender, scale.many, scale) as (stage, client):
        warm(contender, client, scale.burst)
        settle(stage)
        before, before_kb = stage.counts().in_flight, stage.worker_memory_kb()
        with Memory(stage) as memory:
            plans = [contender.plan(number, scale.many_s) for number in range(scale.many)]
            submitted = client.submit_many(plans)
            until(lambda: stage.counts().in_flight - before >= scale.many)
            settle(stage)
            memory.forget()
            time.sleep(LOOK_EVERY_S * 8)
        observed = client.wait(submitted, scale.many_s + GIVE_UP_S)
        settle(stage)
        left_kb = stage.worker_memory_kb() - before_kb
        return memory.figures() | {"missing": scale.many - observed, "left_kb": left_kb}


def lag(contender: Contender, scale: Scale) -> Figures:
    """How long after their faults' end plans have their observations, at a steady arrival.

    Plans arrive whether or not the ones before have been carried out. Only those of the first `steady_s` are
    counted: they end while others still arrive and as many as planned are in flight.
    """
    in_flight = scale.per_s * scale.steady_s
    with fleet(contender, in_flight * 5 // 4, scale) as (stage, client):
        plans = [contender.plan(number, scale.steady_s) for number in range(in_flight * 2)]
        usage = Usage(stage)
        submitted, late_s = arrive(client, plans, 1 / scale.per_s)
        counts = stage.counts()
        figures = usage.figures(len(plans))
        client.wait(submitted[:in_flight], 2.0)
        found = client.endings(submitted[:in_flight])
    lags_ms = [(ended.at - applied_at(ended.apply_id) - scale.steady_s) * 1000 for ended in found if ended]
    return figures | {
        "p50_ms": quantile(lags_ms, 0.5),
        "p95_ms": quantile(lags_ms, 0.95),
        "p99_ms": quantile(lags_ms, 0.99),
        "counted": len(lags_ms),
        "missing": found.count(None),
        "in_flight": counts.in_flight,
        "submitted_late_p95_ms": quantile(late_s, 0.95) * 1000,
    }


def arrive(client: Client, plans: Sequence[object], every_s: float) -> tuple[list[object], list[float]]:
    """Submit each plan at its time. Returns the handles, and how late each plan was submitted, in seconds."""
    submitted: list[object] = []
    late_s: list[float] = []
    begun = time.monotonic()
    for number, plan in enumerate(plans):
        due = begun + number * every_s
        time.sleep(max(0.0, due - time.monotonic()))
        late_s.append(time.monotonic() - due)
        submitted.append(client.submit(plan))
    return submitted, late_s


def submit_rate(contender: Contender, scale: Scale) -> Figures:
    """Plans submitted in a second while no worker takes processor time away."""
    with stage() as made, contender.client(made) as client:
        client.submit_many([contender.plan(WARM_NUMBERS + number, 1) for number in range(scale.warm)])
        plans = [contender.plan(number, 1) for number in range(scale.submitted)]
        usage, begun = Usage(made), time.monotonic()
        submitted = client.submit_many(plans)
        took_s = time.monotonic() - begun
        return usage.figures(len(submitted)) | {"per_s": len(submitted) / took_s}


def kill(contender: Contender, scale: Scale) -> Figures:
    """kill -9 of one worker process while all plans are in flight and no call is under way.

    A supervisor starts it again. A plan is late by the time from its fault's end, by the first apply, to its
    observation.
    """
    with fleet(contender, scale.killed * 5 // 4, scale) as (stage, client):
        doubled = stage.counts().doubled
        submitted = client.submit_many([contender.plan(n, scale.burst_s) for n in range(scale.killed)])
        until(lambda: stage.counts().in_flight >= scale.killed)
        settle(stage)
        os.kill(victim(stage), signal.SIGKILL)
        with stage.supervised():
            client.wait(submitted, scale.burst_s + scale.patience_s)
        found = client.endings(submitted)
        late_s = [late(ended, scale.burst_s) for ended in found if ended]
        return {
            "ended": len(late_s),
            "lost": found.count(None),
            "late_p50_s": quantile(late_s, 0.5),
            "late_p95_s": quantile(late_s, 0.95),
            "late_max_s": max(late_s, default=float("nan")),
            "doubled": stage.counts().doubled - doubled,
        }


def late(ended: Ended, wait_s: float) -> float:
    """How long after its fault's end a plan ended."""
    return ended.at - applied_at(ended.apply_id) - wait_s


def executor_rate(calls: int) -> Figures:
    """What the stub Executor itself can do, with one request at a time on each of 16 connections."""
    request = b"POST /v1/faults/apply HTTP/1.1\r\nHost: stub\r\nContent-Length: 2\r\n\r\n{}"
    with stage() as made:
        url = urlsplit(made.executor_url)
        connections = [socket.create_connection((url.hostname, url.port)) for _ in range(16)]
        before, begun = made.executor.cpu_s(), time.monotonic()
        for _ in range(calls // len(connections)):
            for connection in connections:
                connection.sendall(request)
            for connection in connections:
                connection.recv(4096)
        took_s = time.monotonic() - begun
        for connection in connections:
            connection.close()
        return {"per_s": calls / took_s, "cpu_us": (made.executor.cpu_s() - before) / calls * 1e6}


@contextmanager
def fleet(contender: Contender, in_flight: int, scale: Scale) -> Iterator[tuple[Stage, Client]]:
    """A stage with workers that have carried out some plans, and the client that has submitted them."""
    with stage(trace_bytes=scale.trace_bytes) as made, contender.client(made) as client:
        made.add_workers(contender.worker_commands(made, in_flight))
        warm(contender, client, scale.warm)
        settle(made)
        yield made, client


def until_observed(client: Client, submitted: Sequence[object], begun: float) -> tuple[int, float]:
    """How many plans have observations, and how long that took. Gives up on the others after two minutes."""
    observed = client.wait(submitted, GIVE_UP_S)
    if observed == len(submitted):
        return observed, time.time() - begun
    return observed, max((ended.at for ended in client.endings(submitted) if ended), default=begun) - begun


def warm(contender: Contender, client: Client, count: int) -> None:
    """Carry out `count` short plans."""
    plans = [contender.plan(WARM_NUMBERS + number, 1) for number in range(count)]
    if not client.wait(client.submit_many(plans), GIVE_UP_S):
        raise RuntimeError(f"{contender.name} does not carry out plans")


def settle(stage: Stage) -> None:
    """Return once the workers have nothing to do: all of them are up, and all is tidied."""

    def idle() -> bool:
        before = stage.cpu_s()["workers"]
        time.sleep(LOOK_EVERY_S)
        return stage.cpu_s()["workers"] - before < SETTLED * LOOK_EVERY_S * len(stage.workers)

    until(idle)


def victim(stage: Stage) -> int:
    """The worker process that has worked most, which is not one that merely starts others."""
    spent = {pid: cpu for worker in stage.workers for pid, cpu in worker.cpu_s_by_process().items()}
    return max(spent, key=lambda pid: spent[pid])
