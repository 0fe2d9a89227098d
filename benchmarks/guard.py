"""What a plan costs, in counts that do not depend on how fast a machine is, with an upper bound for each.

`python -m benchmarks.guard`. Real workers, with a tap on their lines to Redis and to the Executor, carry out
a batch. The engine's own steps are counted in this process, where 50 plans always share a group. Exit code 1
if a bound is broken.

    redis_round_trips   how often workers and submitter waited for Redis, by the taps
    redis_scripts       calls of Lua scripts, by Redis's own statistics
    http_calls          to the Executor
    messages            pushed onto the broker's queue
    redis_bytes         sent to Redis and back: submission with its message, claims, settlements, result
    redis_commands      those of the ledger's scripts, by Redis's own statistics
    calls_per_step      Python functions called in one step of the engine, the average of a plan's two steps
    own_calls_per_step  those of this project among them
    allocated_kb        the most that one step holds at once, by tracemalloc
    kept_bytes          what is left of a plan once it has ended, by tracemalloc
"""

from __future__ import annotations

import gc
import statistics
import sys
import time
import tracemalloc
from collections import Counter
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from benchmarks.engine.steps import ScriptedDriver, Steps
from benchmarks.stage.plans import carry_out, plan
from benchmarks.stage.program import Figures, at_most, conclude, run, shown
from benchmarks.stage.stage import default_executor, stage
from benchmarks.stage.tap import Tap
from dispatcher import Dispatcher, ExecutorClientConfig, Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    import redis

    from workers.engine.decisions import Decision

WARM_UP = 100
WORKERS = 2
GROUP = 50
FAULT_S = 1.1

OWN_FOLDERS = tuple(
    folder
    for package in ("dispatcher", "workers")
    if (spec := find_spec(package)) is not None
    for folder in spec.submodule_search_locations or ()
)

BOUNDS = {
    "redis_round_trips": 3.4,
    "redis_scripts": 3.6,
    "http_calls": 3.005,  # a health check may fall into the count
    "messages": 1.0,
    "redis_bytes": 3_850.0,  # the message names its sender's machine
    "redis_commands": 34.0,
    "calls_per_step": 195.0,
    "own_calls_per_step": 105.0,
    "allocated_kb": 17.0,
    "kept_bytes": 200.0,
}
"""The most of each that one plan may take, workers and submitter together; of functions, one step.

All except the own functions are those of redis-py and other libraries, which are used as they are.
"""


def main(plans: int = 1000) -> None:
    """Count, print, and exit with 1 if a bound is broken."""
    found = costs_of_a_plan(plans) | bytes_in_a_group() | costs_in_a_group() | memory_of_a_plan()
    for name, value in found.items():
        print(f"{name:<18} {value:9.2f}  (at most {BOUNDS[name]:g})")
    bounds = at_most(found, BOUNDS)
    found.pop("own_calls_per_step")
    conclude("guard", shown(found, redis_round_trips=2, redis_scripts=2), bounds)


def costs_of_a_plan(plans: int) -> Figures:
    """The average of a batch that is submitted at once. Workers are behind taps, and check no health."""
    with stage() as made, Tap(made.redis_port) as to_redis, Tap(made.executor_port) as to_executor:
        tapped = {"DISPATCHER_REDIS_URL": redis_url(to_redis)} | default_executor(
            base_url=f"http://127.0.0.1:{to_executor.port}", health_check_interval_sec=3600
        )
        made.start_workers(WORKERS, tapped)
        settings = Settings(redis_url=SecretStr(redis_url(to_redis)))
        with Dispatcher(settings) as dispatcher, made.redis_client() as client:
            carry_out(dispatcher, (plan(number, 1, "/warm") for number in range(WARM_UP)))
            before = spent(to_redis, to_executor, client)
            carry_out(dispatcher, (plan(number, 1, "/counted") for number in range(plans)))
            after = spent(to_redis, to_executor, client)
            return {name: (count - before[name]) / plans for name, count in after.items()}


def spent(to_redis: Tap, to_executor: Tap, client: redis.Redis) -> dict[str, int]:
    """What has been spent so far."""
    commands = commands_of(client)
    return {
        "redis_round_trips": to_redis.round_trips,
        "redis_scripts": commands["evalsha"] + commands["eval"],
        "http_calls": to_executor.round_trips,
        "messages": commands["lpush"],
    }


def redis_url(tap: Tap) -> str:
    """The URL of the Redis behind the tap."""
    return f"redis://127.0.0.1:{tap.port}/0"


def bytes_in_a_group() -> Figures:
    """What the submitter and a worker's engine send to Redis and receive. No message is fetched."""
    with stage() as made, Tap(made.redis_port) as to_redis:
        settings = Settings(redis_url=SecretStr(redis_url(to_redis)))
        steps = Steps(settings, ExecutorClientConfig(), ScriptedDriver())
        with Dispatcher(settings) as dispatcher:
            carry_out_group(dispatcher, steps, "/warm")
            before = to_redis.asked_bytes + to_redis.answered_bytes
            carry_out_group(dispatcher, steps, "/counted")
            spent_bytes = to_redis.asked_bytes + to_redis.answered_bytes - before
        steps.close()
    return {"redis_bytes": spent_bytes / GROUP}


def carry_out_group(dispatcher: Dispatcher, steps: Steps, api: str) -> None:
    """Submit plans with their messages, and carry out both steps of each."""
    batch = dispatcher.submit_many([plan(number, 1, api) for number in range(GROUP)])
    steps.begin([handle.id for handle in batch])
    time.sleep(FAULT_S)
    steps.go_on(GROUP)


def costs_in_a_group() -> Figures:
    """What is the same in each run: commands of a plan, and functions of a step. A plan has two steps.

    The driver is a fake, so that the counts hold for any installed HTTP library.
    """
    with engine() as (steps, client):
        before = commands_of(client)
        ids = steps.submit(GROUP)
        begun = calls_of(lambda: steps.begin(ids))
        time.sleep(FAULT_S)
        ended = calls_of(lambda: steps.go_on(GROUP))
        counted = commands_of(client) - before
    del counted["info"]
    figures = {name: (begun[name] + ended[name]) / 2 / GROUP for name in begun}
    return {"redis_commands": counted.total() / GROUP} | figures


def memory_of_a_plan() -> Figures:
    """What the two steps of a plan allocate if no other plan shares their groups."""
    with engine() as (steps, _):
        tracemalloc.start()
        before, ids = held(), steps.submit(GROUP)
        begun = statistics.median(peak_of(partial(steps.begin, [plan_id])) for plan_id in ids)
        time.sleep(FAULT_S)
        ended = statistics.median(peak_of(partial(steps.go_on, 1)) for _ in ids)
        kept = held() - before
        tracemalloc.stop()
    return {"allocated_kb": max(begun, ended) / 1024, "kept_bytes": kept / GROUP}


@contextmanager
def engine() -> Iterator[tuple[Steps, redis.Redis]]:
    """An engine whose scripts are loaded, and a client of its Redis."""
    with stage() as made, made.redis_client() as client:
        steps = Steps(made.settings, ExecutorClientConfig(), ScriptedDriver())
        steps.begin(steps.submit(1))
        time.sleep(FAULT_S)
        steps.go_on(1)
        yield steps, client
        steps.close()


def commands_of(client: redis.Redis) -> Counter[str]:
    """How often Redis has carried out each command, those of scripts included."""
    stats = client.info("commandstats")
    return Counter({name.removeprefix("cmdstat_"): int(each["calls"]) for name, each in stats.items()})


def calls_of(act: Callable[[], list[Decision]]) -> dict[str, int]:
    """How many Python functions are called while `act` runs: of all code, and of ours."""
    called = {"calls_per_step": 0, "own_calls_per_step": 0}

    def note(frame: FrameType, event: str, __: Any) -> None:
        if event == "call":
            called["calls_per_step"] += 1
            called["own_calls_per_step"] += frame.f_code.co_filename.startswith(OWN_FOLDERS)

    sys.setprofile(note)
    act()
    sys.setprofile(None)
    return called


def peak_of(act: Callable[[], object]) -> int:
    """How many bytes are held at once, at most, that were not held before."""
    before, _ = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    act()
    return tracemalloc.get_traced_memory()[1] - before


def held() -> int:
    """Bytes that are still in use."""
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


if __name__ == "__main__":
    run(main, __doc__)
