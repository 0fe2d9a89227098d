"""What a plan costs, in counts that do not depend on how fast a machine is, with an upper bound for each.

`python -m benchmarks.guard`. Real workers, with a tap on their lines to Redis and to the Executor, carry out
a batch. The function calls of the engine's own steps are counted in this process. Exit code 1 if a bound is
broken.

    redis_round_trips  how often workers and submitter waited for Redis, by the taps
    redis_scripts      calls of Lua scripts, by Redis's own statistics
    redis_commands     all commands, those inside of scripts included, by the same statistics
    redis_bytes        sent to Redis and back
    http_calls         to the Executor
    messages           pushed onto the broker's queue
    function_calls     Python functions called in one step of the engine, the average of a plan's two steps
"""

from __future__ import annotations

import sys
import time
from collections import Counter
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
    from collections.abc import Callable
    from types import FrameType

    import redis

    from workers.engine.decisions import Decision

WARM_UP = 100
WORKERS = 2
STEPS_COUNTED = 50

OWN_FOLDERS = tuple(
    folder
    for package in ("dispatcher", "workers")
    if (spec := find_spec(package)) is not None
    for folder in spec.submodule_search_locations or ()
)

BOUNDS = {
    "redis_round_trips": 3.4,
    "redis_scripts": 3.6,
    "redis_commands": 58.0,
    "redis_bytes": 6_500.0,
    "http_calls": 3.005,  # a health check may fall into the count
    "messages": 1.0,
    "calls_per_step": 195.0,
    "own_calls_per_step": 105.0,
}
"""The most of each that one plan may take, workers and submitter together; of functions, one step.

All except the own functions are those of redis-py and other libraries, which are used as they are.
"""


def main(plans: int = 1000) -> None:
    """Count, print, and exit with 1 if a bound is broken."""
    found = costs_of_a_plan(plans) | functions_called()
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
    stats = client.info("commandstats")
    commands = Counter({name.removeprefix("cmdstat_"): int(each["calls"]) for name, each in stats.items()})
    return {
        "redis_round_trips": to_redis.round_trips,
        "redis_scripts": commands["evalsha"] + commands["eval"],
        "redis_commands": commands.total(),
        "redis_bytes": to_redis.asked_bytes + to_redis.answered_bytes,
        "http_calls": to_executor.round_trips,
        "messages": commands["lpush"],
    }


def redis_url(tap: Tap) -> str:
    """The URL of the Redis behind the tap."""
    return f"redis://127.0.0.1:{tap.port}/0"


def functions_called() -> Figures:
    """Python functions that one step of the engine calls, of all code and of ours. A plan has two steps.

    The driver is a fake, so that the count holds for any installed HTTP library.
    """
    with stage() as made:
        steps = Steps(made.settings, ExecutorClientConfig(), ScriptedDriver())
        steps.begin(steps.submit(1))  # loads the scripts
        ids = steps.submit(STEPS_COUNTED)
        begun = calls_of(lambda: steps.begin(ids))
        time.sleep(1.1)  # how long the faults last
        ended = calls_of(lambda: steps.go_on(STEPS_COUNTED + 1))
        steps.close()
    return {name: (begun[name] / STEPS_COUNTED + ended[name] / (STEPS_COUNTED + 1)) / 2 for name in begun}


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


if __name__ == "__main__":
    run(main, __doc__)
