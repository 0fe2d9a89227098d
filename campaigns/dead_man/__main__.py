"""The dead-man's switch: what becomes of faults if everything that could end them is killed at once.

`python -m campaigns.dead_man`. Clients send 200 requests a second through Envoy. In each round plans put
faults on some of the targets. At a random moment, all workers, Redis and the reference Executor are killed by
kill -9, at once. Some plans are queued then, some are being applied, and others are in force. After some
seconds all of them are started again. It measures:

    outlived         from the kill to the answer of the last request that met a fault, at most 5 s
    failed_requests  requests that failed meanwhile, except those that met a fault
    unresolved       plans without an observation or a typed error after the restart, faults that the workers
                     still hold as active, and faults that the Executor still lists

Exit code 1 if one of the bounds does not hold. The same seed gives the same moments and plans.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.stage.commands import free_port, python, until
from benchmarks.stage.plans import SERVICE, plan
from benchmarks.stage.processes import Process
from benchmarks.stage.program import run, seeded
from benchmarks.stage.stage import STUB, reference_executor, stage
from campaigns.dead_man.bystanders import FAULTED, TARGETS, Bystanders
from campaigns.fleet import IMPATIENT, outcomes
from dispatcher import Dispatcher, LedgerUnavailableError, PlanUnknownError, ResultTimeoutError

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

    from benchmarks.stage.stage import Stage
    from dispatcher import FaultPlan, RawObservation

WORKERS = 2
MAX_OUTLIVED_S = 5.0
DOWN_FOR_S = 6.0
"""Longer than a fault may outlive everything."""

TIMEOUT_S = 60
SETTLE_S = 120.0
IN_FORCE = TARGETS // 2
"""Plans whose faults are in force when everything is killed. As many others have just been submitted."""

LASTS_S = (10, 20)
LATE_LASTS_S = (2, 10)
BEFORE_S = 3.0
LATE_BEFORE_S = 0.6


@dataclass(frozen=True)
class Round:
    """What was found in one round."""

    in_force: int
    """Targets whose requests met a fault in the second before the kill."""

    outlived_s: float
    failed: int
    requests: int
    outcomes: Counter[str]
    unresolved: int

    def __str__(self) -> str:
        ends = ", ".join(f"{count} {name}" for name, count in self.outcomes.most_common())
        return (
            f"in force {self.in_force:2}  outlived {self.outlived_s:4.2f} s  requests {self.requests}  "
            f"failed {self.failed}  unresolved {self.unresolved}  plans: {ends}"
        )


def main(rounds: int = 20, seed: int | None = None) -> None:
    """Run all rounds, print what was found, and exit with 1 if a bound does not hold."""
    every = []
    for number, found in enumerate(_rounds(rounds, seeded(seed)), 1):
        print(f"round {number:2}  {found}", flush=True)
        every.append(found)
    outlived_s = max((each.outlived_s for each in every), default=0.0)
    failed, unresolved = sum(each.failed for each in every), sum(each.unresolved for each in every)
    figures = f"max_outlived_s={outlived_s:.2f} failed_requests={failed} unresolved={unresolved}"
    print(f"dead-man: rounds={len(every)} {figures}")
    sys.exit(int(outlived_s > MAX_OUTLIVED_S or failed > 0 or unresolved > 0))


def _rounds(count: int, chance: random.Random) -> Iterator[Round]:
    service_port, proxy_port = free_port(), free_port()
    with stage(reference_executor(proxy_port, service_port, SERVICE), appendfsync="always") as made:
        made.add_servers([python(STUB[0], service_port)])  # answers as the service, too
        made.start_workers(WORKERS, IMPATIENT)
        with Bystanders(proxy_port) as bystanders, Dispatcher(made.settings) as dispatcher:
            for _ in range(count):
                yield _round(made, dispatcher, chance, bystanders)


def _round(made: Stage, dispatcher: Dispatcher, chance: random.Random, bystanders: Bystanders) -> Round:
    bystanders.forget()
    begun = time.time()
    handles = [*dispatcher.submit_many(_plans(0, LASTS_S, chance), timeout_sec=TIMEOUT_S)]
    until(lambda: len({each.path for each in bystanders.hit(begun, time.time())}) >= IN_FORCE)
    time.sleep(chance.uniform(0, BEFORE_S))
    handles += dispatcher.submit_many(_plans(IN_FORCE, LATE_LASTS_S, chance), timeout_sec=TIMEOUT_S)
    time.sleep(chance.uniform(0, LATE_BEFORE_S))
    killed = _kill_all(made)
    time.sleep(DOWN_FOR_S)
    restarted = time.time()
    made.start()
    give_up_at = time.monotonic() + SETTLE_S
    ends = outcomes(dispatcher, [handle.id for handle in handles], SETTLE_S)
    left = _left(made, dispatcher, give_up_at)
    seen = bystanders.ended()
    return Round(
        in_force=len({each.path for each in bystanders.hit(killed - 1, killed)}),
        outlived_s=max((each.answered - killed for each in bystanders.hit(killed, restarted)), default=0.0),
        failed=sum(map(bystanders.failed, seen)),
        requests=len(seen),
        outcomes=Counter(type(each).__name__ for each in ends),
        unresolved=sum(map(_is_unresolved, ends)) + left,
    )


def _plans(first: int, lasts_s: tuple[int, int], chance: random.Random) -> list[FaultPlan]:
    numbers = range(first, first + IN_FORCE)
    changes = {"abort_http_status": FAULTED}
    return [plan(number, chance.randint(*lasts_s)).model_copy(update=changes) for number in numbers]


def _kill_all(made: Stage) -> float:
    """Kill -9 all of it at once, except the service; when, in seconds since 1970."""
    killed, parts = time.time(), [made.redis, made.executor, *made.workers]
    with ThreadPoolExecutor(len(parts)) as pool:
        list(pool.map(Process.kill, parts))
    return killed


def _left(made: Stage, dispatcher: Dispatcher, give_up_at: float) -> int:
    """How many faults the workers or the Executor still have, once they had time to end them."""
    left = -1
    while left and time.monotonic() < give_up_at:
        with suppress(LedgerUnavailableError, OSError):
            left = len(dispatcher.active()) + len(made.ask_executor("/v1/faults")["faults"])
    return abs(left)


def _is_unresolved(outcome: RawObservation | Exception) -> bool:
    return isinstance(outcome, PlanUnknownError | ResultTimeoutError)


if __name__ == "__main__":
    run(main, __doc__)
