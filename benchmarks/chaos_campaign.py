"""The chaos campaign: plans go through a fleet whose parts are killed, stopped and fed garbage at random.

`python -m benchmarks.chaos_campaign --plans 2000`. Real workers, a real Redis with AOF, an Executor that
writes down every fault. At the end each plan is held against what the Executor wrote down:

    lost      a plan without an observation or a typed error
    doubled   a plan that was applied more than once
    stranded  a fault that was alive after its plan had ended, and its target was free for others
    wrong     an observation of another plan's fault

`--peer` runs the same campaign against plain Celery (see `plain_celery.py`). The seed is printed: the same
seed gives the same kinds of chaos in the same order.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import redis
import requests
from pydantic import SecretStr

from benchmarks.counting_executor import Fault, Journal
from dispatcher import (
    Dispatcher,
    ExecutorClientError,
    FaultPlan,
    LedgerUnavailableError,
    PlanUnknownError,
    RawObservation,
    ResultTimeoutError,
    Settings,
)
from dispatcher.stack import redis_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from celery.result import AsyncResult

DURATION_S = 2
SLACK_S = 0.25
SETTLE_S = 120.0
STOPPED_FOR_S = 5.0
DOWN_FOR_S = 0.7
EPISODE_S = 2.0


@dataclass
class Part:
    """A process that can be killed and started again."""

    command: list[str]
    environment: dict[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, if it is not there."""
        if self.process is None or self.process.poll() is not None:
            with self.log.open("ab") as out:
                self.process = subprocess.Popen(  # noqa: S603 (our own command)
                    self.command, env={**os.environ, **self.environment}, stdout=out, stderr=out
                )

    def signal(self, number: int) -> None:
        """Send a signal, if it is there."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)
            if number == signal.SIGKILL:
                self.process.wait()


@dataclass
class Event:
    """One act of chaos."""

    kind: str
    at: float


@dataclass
class Fleet:
    """Redis, the Executor and the workers."""

    folder: Path
    workers: list[Part] = field(default_factory=list)
    redis: Part = field(init=False)
    executor: Part = field(init=False)
    journal: Path = field(init=False)

    def __post_init__(self) -> None:
        self.redis_port, self.executor_port = free_port(), free_port()
        self.redis_url = f"redis://127.0.0.1:{self.redis_port}/0"
        self.executor_url = f"http://127.0.0.1:{self.executor_port}"
        self.journal = self.folder / "journal"
        keep = ["--appendonly", "yes", "--appendfsync", "everysec", "--save", ""]
        listen = ["--bind", "127.0.0.1", "--port", str(self.redis_port), "--dir", str(self.folder)]
        self.redis = Part([redis_server(), *listen, *keep], {}, self.folder / "redis.log")
        counting = ["-m", "benchmarks.counting_executor", str(self.executor_port), str(self.journal)]
        self.executor = Part([sys.executable, *counting], {}, self.folder / "executor.log")

    def add_workers(self, count: int, app: str, environment: dict[str, str]) -> None:
        """Workers of the Celery application `app`."""
        for number in range(count):
            options = ["--hostname", f"w{number}@%h", "--loglevel", "WARNING"]
            command = [sys.executable, "-m", "celery", "--app", app, "worker", *options]
            self.workers.append(Part(command, environment, self.folder / f"worker{number}.log"))

    def start(self) -> None:
        """Start all that is not there."""
        for part in (self.redis, self.executor, *self.workers):
            part.start()

    def wait_for_redis(self) -> None:
        """Returns once Redis answers."""
        with redis.Redis(port=self.redis_port) as client:
            while True:
                with suppress(redis.RedisError):
                    if client.ping():
                        return
                time.sleep(0.02)

    def end(self) -> None:
        """End all."""
        for part in (*self.workers, self.executor, self.redis):
            part.signal(signal.SIGCONT)
            part.signal(signal.SIGKILL)


class Chaos:
    """Acts in random order, from a seed."""

    def __init__(
        self, fleet: Fleet, seed: int, kills: int, redis_kills: int, duplicate: Callable[[], None]
    ) -> None:
        self._fleet = fleet
        self._random = random.Random(seed)  # noqa: S311 (chaos is no secret)
        acts: list[tuple[str, Callable[[], None]]] = [("kill worker", self._kill_worker)] * kills
        acts += [("kill redis", self._kill_redis)] * redis_kills
        others = [
            ("stop worker", self._stop_worker),
            ("kill executor", self._kill_executor),
            ("hang", lambda: self._misbehave("hang")),
            ("500", lambda: self._misbehave("500")),
            ("garbage", lambda: self._misbehave("garbage")),
            ("slow", lambda: self._misbehave("slow")),
            ("duplicate wake-ups", duplicate),
            ("drop wake-ups", self._drop_wake_ups),
        ]
        acts += others * max(1, kills // 10)
        self._random.shuffle(acts)
        self._acts = acts
        self.events: list[Event] = []

    def run(self, for_s: float) -> None:
        """All acts, spread over `for_s` seconds."""
        gap = for_s / len(self._acts)
        for kind, act in self._acts:
            begun = time.time()
            self.events.append(Event(kind, begun))
            with suppress(redis.RedisError, requests.RequestException, LedgerUnavailableError):
                act()
            time.sleep(max(0.0, gap * self._random.uniform(0.5, 1.5) - (time.time() - begun)))

    def _kill_worker(self) -> None:
        victim = self._random.choice(self._fleet.workers)
        victim.signal(signal.SIGKILL)
        time.sleep(0.1)
        self._fleet.start()

    def _stop_worker(self) -> None:
        victim = self._random.choice(self._fleet.workers)
        victim.signal(signal.SIGSTOP)
        threading.Timer(STOPPED_FOR_S, victim.signal, [signal.SIGCONT]).start()

    def _kill_redis(self) -> None:
        self._fleet.redis.signal(signal.SIGKILL)
        time.sleep(DOWN_FOR_S)
        self._fleet.start()
        self._fleet.wait_for_redis()

    def _kill_executor(self) -> None:
        self._fleet.executor.signal(signal.SIGKILL)
        time.sleep(DOWN_FOR_S)
        self._fleet.start()

    def _misbehave(self, how: str) -> None:
        asked: dict[str, Any] = {"how": how, "seconds": EPISODE_S}
        requests.post(f"{self._fleet.executor_url}/misbehave", json=asked, timeout=2)

    def _drop_wake_ups(self) -> None:
        with redis.Redis(port=self._fleet.redis_port) as client:
            for _ in range(20):
                client.rpop("dispatcher")
                time.sleep(0.01)


def main() -> None:
    """Run the campaign; exit code 0 where nothing was lost, doubled, stranded or wrong."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos_campaign", description=__doc__)
    parser.add_argument("--plans", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=40, help="of workers")
    parser.add_argument("--redis-kills", type=int, default=5)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument(
        "--for-seconds", type=float, default=100.0, help="over which plans and chaos are spread"
    )
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--peer", action="store_true", help="run plain Celery instead")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(10**6)
    print(f"seed {seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="campaign-") as folder:
        fleet = Fleet(Path(folder))
        try:
            campaign = run_peer if options.peer else run_dispatcher
            tally = campaign(fleet, options, seed)
        finally:
            fleet.end()
    name = "plain celery" if options.peer else "campaign"
    told = " ".join(f"{key}={tally[key]}" for key in ("lost", "doubled", "stranded", "wrong"))
    print(f"{name}: plans={options.plans} {told}")
    sys.exit(0 if options.peer else int(any(tally[key] for key in ("lost", "doubled", "stranded", "wrong"))))


def run_dispatcher(fleet: Fleet, options: argparse.Namespace, seed: int) -> Counter[str]:
    """This project."""
    executor = "DISPATCHER_EXECUTORS__DEFAULT__"
    environment = {
        "DISPATCHER_REDIS_URL": fleet.redis_url,
        f"{executor}BASE_URL": fleet.executor_url,
        f"{executor}CONNECTION_TIMEOUT_SEC": "1",
        f"{executor}READ_TIMEOUT_SEC": "2",
        # Episodes are short: a minute behind an open breaker would hide what else goes on.
        f"{executor}CIRCUIT_BREAKER_TIMEOUT_SEC": "1",
        f"{executor}CIRCUIT_BREAKER_MAX_TIMEOUT_SEC": "2",
        f"{executor}CIRCUIT_BREAKER_ON_OPEN": "defer",
        f"{executor}CIRCUIT_BREAKER_RECOVERY_PER_SEC": "200",
    }
    fleet.add_workers(options.workers, "workers.app", environment)
    fleet.start()
    fleet.wait_for_redis()
    with Dispatcher(Settings(redis_url=SecretStr(fleet.redis_url))) as dispatcher:
        submitted: list[str] = []

        def duplicate() -> None:
            wake = dispatcher._celery.send_task  # noqa: SLF001 (what a doubled message looks like)
            for plan_id in random.sample(submitted, min(20, len(submitted))):
                wake("dispatcher.run_plan", args=[plan_id], task_id=plan_id, ignore_result=True)

        chaos = Chaos(fleet, seed, options.kills, options.redis_kills, duplicate)
        disturber = threading.Thread(target=chaos.run, args=[options.for_seconds])
        disturber.start()
        for number in paced(options):
            submitted += [submit(dispatcher, number)]  # as they go, for whoever doubles wake-ups
        disturber.join()
        give_up_at = time.monotonic() + SETTLE_S
        outcomes = {plan_id: outcome(dispatcher, plan_id, give_up_at) for plan_id in submitted}
        faults = Journal(fleet.journal).faults
        ended = {plan_id: end_of(dispatcher, plan_id) for plan_id in submitted}
    report(outcomes, ended, faults, chaos.events)
    return tally(outcomes, ended, faults)


def submit(dispatcher: Dispatcher, number: int) -> str:
    """Submit plan `number`, as often as it takes: the same id is the same plan."""
    plan_id = f"plan-{number}"
    while True:
        with suppress(LedgerUnavailableError):
            return dispatcher.submit(plan(number), plan_id=plan_id, timeout_sec=60).id


def outcome(dispatcher: Dispatcher, plan_id: str, give_up_at: float) -> RawObservation | Exception:
    """How the plan ended."""
    while True:
        try:
            return dispatcher.handle(plan_id).result(max(0.0, give_up_at - time.monotonic()))
        except LedgerUnavailableError:
            continue
        except ExecutorClientError as error:
            return error


def end_of(dispatcher: Dispatcher, plan_id: str) -> tuple[float, float]:
    """When the plan ended, and until when it kept its target."""
    [record] = dispatcher._ledger.read([plan_id])  # noqa: SLF001 (what only the ledger knows)
    if record is None or record.ended_ms is None:
        return 0.0, 0.0
    released_ms = max(record.ended_ms, record.released_ms or 0)
    return record.ended_ms / 1000, released_ms / 1000


def tally(
    outcomes: dict[str, RawObservation | Exception],
    ended: dict[str, tuple[float, float]],
    faults: dict[str, Fault],
) -> Counter[str]:
    """Hold every plan against what the Executor wrote down."""
    counts: Counter[str] = Counter()
    applied = Counter(fault.api for fault in faults.values())
    counts["doubled"] = sum(1 for times in applied.values() if times > 1)
    for plan_id, result in outcomes.items():
        if isinstance(result, PlanUnknownError | ResultTimeoutError):
            counts["lost"] += 1
        if isinstance(result, RawObservation):
            counts["wrong"] += result.logs != [api(int(plan_id.rpartition("-")[2]))]
    for fault in faults.values():
        _, released = ended[f"plan-{fault.api.rpartition('/')[2]}"]
        counts["stranded"] += fault.ends > released + SLACK_S
    return counts


def report(
    outcomes: dict[str, RawObservation | Exception],
    ended: dict[str, tuple[float, float]],
    faults: dict[str, Fault],
    events: list[Event],
) -> None:
    """Print how the plans ended, and the delay that each kind of chaos added."""
    kinds = Counter(type(result).__name__ for result in outcomes.values())
    print("ended with: " + ", ".join(f"{count} {name}" for name, count in kinds.most_common()))
    begun = {f"plan-{fault.api.rpartition('/')[2]}": fault for fault in faults.values()}
    added = {
        plan_id: (begun[plan_id].begun, ended[plan_id][0], ended[plan_id][0] - begun[plan_id].ends)
        for plan_id, result in outcomes.items()
        if isinstance(result, RawObservation) and plan_id in begun
    }
    print(f"{'chaos':<20} {'times':>5} {'plans':>6}   added delay p50 / p95 / max in s")
    for kind in [*sorted({event.kind for event in events}), "(all)"]:
        acts = [event.at for event in events if event.kind == kind]
        met = [
            delay
            for first, last, delay in added.values()
            if kind == "(all)" or any(first <= at <= last for at in acts)
        ]
        print(f"{kind:<20} {len(acts) or len(events):>5} {len(met):>6}   {spread(met)}")


def run_peer(fleet: Fleet, options: argparse.Namespace, seed: int) -> Counter[str]:
    """Plain Celery, with the same chaos but for what it has no counterpart of."""
    environment = {"PLAIN_REDIS": fleet.redis_url, "PLAIN_EXECUTOR": fleet.executor_url}
    os.environ.update(environment)
    from benchmarks.plain_celery import app, carry_out  # noqa: PLC0415 (it reads the environment)

    app.conf.update(broker_url=fleet.redis_url, result_backend=fleet.redis_url)
    fleet.add_workers(options.workers, "benchmarks.plain_celery", environment)
    fleet.start()
    fleet.wait_for_redis()
    chaos = Chaos(fleet, seed, options.kills, options.redis_kills, lambda: None)
    disturber = threading.Thread(target=chaos.run, args=[options.for_seconds])
    disturber.start()
    results = {}
    for number in paced(options):
        while number not in results:
            with suppress(Exception):  # whatever it is that Redis being away makes of it
                results[number] = carry_out.apply_async(args=[body(number)], retry=False)
    disturber.join()
    counts = peer_tally(fleet, results)
    results.clear()  # they unsubscribe, which needs Redis
    applied = Counter(fault.api for fault in Journal(fleet.journal).faults.values())
    counts["doubled"] = sum(1 for times in applied.values() if times > 1)
    return counts


def peer_tally(fleet: Fleet, results: dict[int, AsyncResult]) -> Counter[str]:
    """How many of plain Celery's plans got lost, or another one's observation."""
    counts: Counter[str] = Counter()
    give_up_at = time.monotonic() + SETTLE_S
    for number, result in results.items():
        fleet.start()  # an operator would start again what has died
        try:
            observed = result.get(timeout=max(0.1, give_up_at - time.monotonic()), propagate=False)
            counts["wrong"] += isinstance(observed, dict) and observed["logs"] != [api(number)]
        except Exception:  # noqa: BLE001 (no answer, in whatever way)
            counts["lost"] += 1
    return counts


def paced(options: argparse.Namespace) -> Iterator[int]:
    """The numbers of the plans, evenly over most of the time."""
    gap = options.for_seconds * 0.9 / options.plans
    next_at = time.monotonic()
    for number in range(options.plans):
        time.sleep(max(0.0, next_at - time.monotonic()))
        next_at += gap
        yield number


def plan(number: int, duration_s: int = DURATION_S) -> FaultPlan:
    """Each plan has a target of its own, by which its faults are told apart."""
    return FaultPlan.model_validate(
        {
            "service": "Target",
            "api": api(number),
            "fault_type": "abort",
            "abort_http_status": 503,
            "percentage": 100,
            "duration_seconds": duration_s,
        }
    )


def body(number: int) -> dict[str, Any]:
    """The same as a request to the Executor."""
    fields: dict[str, Any] = json.loads(plan(number).model_dump_json(exclude_none=True))
    return fields | {"fault_config": {"http_status": fields.pop("abort_http_status")}}


def api(number: int) -> str:
    """The target of plan `number`."""
    return f"/plan/{number}"


def spread(values: list[float]) -> str:
    """Median, 95th percentile and maximum."""
    if not values:
        return "-"
    ranked = sorted(values)
    return " / ".join(
        f"{ranked[min(len(ranked) - 1, int(len(ranked) * share))]:.2f}" for share in (0.5, 0.95, 1)
    )


def free_port() -> int:
    """A free loopback port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()
