"""What a plan costs, in counts that do not depend on how fast a machine is, with an upper bound for each.

`python -m benchmarks.guard`. Real worker processes, with a tap on their lines to Redis and to the Executor,
carry out a batch; the functions that a step calls are counted in this process. Exit code 1 where a bound is
broken.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import redis
from pydantic import SecretStr

from benchmarks.chaos_campaign import free_port
from benchmarks.stage import Command, Stage, stage
from benchmarks.tap import Tap
from dispatcher import Dispatcher, ExecutorClientConfig, FaultPlan, FaultType, RawObservation, Settings
from dispatcher.celery_app import make_celery
from dispatcher.connection import impatient_client
from dispatcher.ledger import Submission, connect
from dispatcher.record import Order
from dispatcher.results import ResultCodec
from dispatcher.settings import WakerSettings
from workers.breaker import SharedBreaker
from workers.channel import open_channel
from workers.steps import Steps

if TYPE_CHECKING:
    from types import FrameType

    from benchmarks.tap import Traffic
    from workers.verdicts import Verdict

PLANS = 1000
WARM_UP = 100
WORKERS = 2
STEPS_COUNTED = 50
WITHIN_S = 120.0

OWN_FOLDERS = tuple(
    folder
    for package in ("dispatcher", "workers")
    if (spec := find_spec(package)) is not None
    for folder in spec.submodule_search_locations or ()
)

BOUNDS = {
    "redis_round_trips": 6.0,
    "redis_commands": 72.0,
    "redis_bytes": 9_500.0,
    "http_calls": 3.0,
    "messages": 2.0,
    "calls_per_step": 1_330.0,
    "own_calls_per_step": 205.0,
}
"""The most of each that one plan may take, all sides together; of functions, one step on the average.

All but the own functions are those of requests, redis-py and other libraries, which are used as they are.
"""

MARGIN = {"http_calls": 0.005, "messages": 0.005}
"""These are exact, but for what happens now and then without any plan."""


@dataclass(frozen=True)
class Costs:
    """What has been spent so far."""

    redis_line: Traffic
    http_line: Traffic
    commands: Counter[str]
    messages: int


def main() -> None:
    """Count, print, and exit with 1 where a bound is broken."""
    found = costs_of_a_plan() | calls_per_step()
    for name, value in found.items():
        print(f"{name:<18} {value:9.2f}  (at most {BOUNDS[name]:g})")
    broken = [name for name, value in found.items() if value > BOUNDS[name] + MARGIN.get(name, 0.0)]
    for name in broken:
        print(f"BOUND BROKEN: {name}")
    told = "redis_round_trips={redis_round_trips:.1f} http_calls={http_calls:.0f} messages={messages:.0f}"
    print("guard: " + told.format(**found))
    sys.exit(int(bool(broken)))


def costs_of_a_plan() -> dict[str, float]:
    """The average of a batch."""
    with stage() as made, ExitStack() as stack:
        to_redis = stack.enter_context(Tap(free_port(), made.redis_port))
        to_executor = stack.enter_context(Tap(free_port(), int(made.executor_url.rpartition(":")[2])))
        made.add_workers([_worker(number, to_redis, to_executor) for number in range(WORKERS)])
        client = stack.enter_context(redis.Redis(port=made.redis_port))
        patient = WakerSettings(patience_sec=60, max_patience_sec=600)
        settings = Settings(redis_url=SecretStr(f"redis://127.0.0.1:{to_redis.port}/0"), waker=patient)
        dispatcher = stack.enter_context(Dispatcher(settings))
        _carry_out(dispatcher, made, "warm", WARM_UP)
        before = Costs(to_redis.traffic, to_executor.traffic, _commands(client), _messages(client))
        _carry_out(dispatcher, made, "counted", PLANS)
        line, commands = to_redis.traffic - before.redis_line, _commands(client) - before.commands
        return {
            "redis_round_trips": line.exchanges / PLANS,
            "redis_commands": commands.total() / PLANS,
            "redis_bytes": (line.asked_bytes + line.answered_bytes) / PLANS,
            "http_calls": (to_executor.traffic - before.http_line).exchanges / PLANS,
            "messages": (_messages(client) - before.messages) / PLANS,
        }


def calls_per_step() -> dict[str, float]:
    """How many Python functions one step calls, on the average of a plan's two: of all code, and of ours."""
    with stage() as made:
        config = ExecutorClientConfig(base_url=made.executor_url)
        settings = Settings(
            redis_url=SecretStr(f"redis://127.0.0.1:{made.redis_port}/0"), executors={"default": config}
        )
        channel = open_channel("default", config, {}, connections=1, poll_ms=500)
        ledger, quick = connect(settings), impatient_client(settings)
        breaker = SharedBreaker(quick, settings.key_prefix, "default", channel.rules)
        codec = ResultCodec(make_celery(settings))
        steps = Steps(ledger, codec, {"default": channel}, {"default": breaker}, expect=lambda _: None)
        ids = [f"p{number}" for number in range(1 + STEPS_COUNTED)]
        orders = [Order(plan=_plan("step", number), timeout_ms=30_000) for number in range(len(ids))]
        ledger.submit([Submission(*each) for each in zip(ids, orders, strict=True)])
        applied = _functions_called(steps, ids)
        time.sleep(1.1)  # what the faults last
        observed = _functions_called(steps, ids)
        ledger.close()
        quick.close()
        channel.close()
    return {name: (applied[name] + observed[name]) / 2 for name in applied}


def _functions_called(steps: Steps, ids: list[str]) -> dict[str, float]:
    """By one step of each plan, on the average. The first step warms up."""
    called = {"calls_per_step": 0, "own_calls_per_step": 0}

    def note(frame: FrameType, event: str, __: Any) -> None:
        if event == "call":
            called["calls_per_step"] += 1
            called["own_calls_per_step"] += frame.f_code.co_filename.startswith(OWN_FOLDERS)

    first, *rest = ids
    steps.take(first, _nothing_more)
    sys.setprofile(note)
    for plan_id in rest:
        steps.take(plan_id, _nothing_more)
    sys.setprofile(None)
    return {name: count / len(rest) for name, count in called.items()}


def _nothing_more(_: Verdict) -> None:
    """A step has come to its end."""


def _carry_out(dispatcher: Dispatcher, made: Stage, name: str, count: int) -> None:
    results = dispatcher.submit_many(_plan(name, number) for number in range(count)).results(WITHIN_S)
    if not all(isinstance(result, RawObservation) for result in results):
        raise RuntimeError(f"some plans have no observation: {made.logs()}")


def _plan(name: str, number: int) -> FaultPlan:
    return FaultPlan(
        service="PaymentService",
        api=f"/{name}/{number}",
        fault_type=FaultType.ABORT,
        abort_http_status=503,
        percentage=100,
        duration_seconds=1,
    )


def _worker(number: int, to_redis: Tap, to_executor: Tap) -> Command:
    """A worker process that checks no health meanwhile, and takes no wake-up for lost that is only slow."""
    options = ["--hostname", f"worker{number}@%h", "--loglevel", "WARNING"]
    environment = {
        "DISPATCHER_REDIS_URL": f"redis://127.0.0.1:{to_redis.port}/0",
        "DISPATCHER_EXECUTORS__DEFAULT__BASE_URL": f"http://127.0.0.1:{to_executor.port}",
        "DISPATCHER_EXECUTORS__DEFAULT__HEALTH_CHECK_INTERVAL_SEC": "3600",
        "DISPATCHER_WAKER__PATIENCE_SEC": "60",
        "DISPATCHER_WAKER__MAX_PATIENCE_SEC": "600",
    }
    return Command([sys.executable, "-m", "celery", "--app", "workers.app", "worker", *options], environment)


def _commands(client: redis.Redis) -> Counter[str]:
    """How often each command was carried out, those within scripts included."""
    stats = client.info("commandstats")
    return Counter({name.removeprefix("cmdstat_"): int(each["calls"]) for name, each in stats.items()})


def _messages(client: redis.Redis) -> int:
    """How many wake-ups workers have received: with each they began a step, or found nothing to do."""
    return sum(int(count or 0) for count in client.hmget("{dispatcher}:counts", "steps", "wake_ups_wasted"))


if __name__ == "__main__":
    main()
