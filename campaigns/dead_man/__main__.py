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

import argparse
import random
import socket
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.stage import celery_worker, envoy_ends, stage, until
from benchmarks.stage.plans import plan
from benchmarks.stage.processes import Command, Process, free_port
from campaigns.chaos.__main__ import OPTIONS, outcome
from campaigns.dead_man.bystanders import FAULTED, SERVICE, TARGETS, Log
from dispatcher import Dispatcher, LedgerUnavailableError, PlanUnknownError, ResultTimeoutError
from dispatcher.tasks.app import make_celery

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benchmarks.stage import Stage
    from campaigns.dead_man.bystanders import Request
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


def main() -> None:
    """Run all rounds, print what was found, and exit with 1 if a bound does not hold."""
    parser = argparse.ArgumentParser(prog="python -m campaigns.dead_man", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    chance = random.Random(options.seed)  # noqa: S311 (chaos is not a secret)
    rounds = []
    for number, found in enumerate(_rounds(options.rounds, chance), 1):
        print(f"round {number:2}  {found}", flush=True)
        rounds.append(found)
    outlived_s = max((each.outlived_s for each in rounds), default=0.0)
    failed, unresolved = sum(each.failed for each in rounds), sum(each.unresolved for each in rounds)
    figures = f"max_outlived_s={outlived_s:.2f} failed_requests={failed} unresolved={unresolved}"
    print(f"dead-man: rounds={len(rounds)} {figures}")
    sys.exit(int(outlived_s > MAX_OUTLIVED_S or failed > 0 or unresolved > 0))


def _rounds(count: int, chance: random.Random) -> Iterator[Round]:
    service_port, proxy_port = free_port(), free_port()
    serves = [
        "executor",
        "--port",
        "{port}",
        "--proxy-port",
        str(proxy_port),
        "--state-dir",
        "{folder}/state",
    ]
    serves += ["--service", f"{SERVICE}=127.0.0.1:{service_port}"]
    with (
        stage(serves=serves, appendfsync="always") as made,
        envoy_ends(made),
        _bystanders(made.folder, service_port, proxy_port) as log,
        Dispatcher(made.settings) as dispatcher,
    ):
        environment = made.environment | OPTIONS
        made.add_workers([celery_worker("workers.app", number, environment) for number in range(WORKERS)])
        with make_celery(made.settings) as app:
            made.wait_for_workers(app)
        for _ in range(count):
            yield _round(made, dispatcher, chance, log)


def _round(made: Stage, dispatcher: Dispatcher, chance: random.Random, log: Log) -> Round:
    seen = log.news()
    handles = [*dispatcher.submit_many(_plans(0, LASTS_S, chance), timeout_sec=TIMEOUT_S)]
    until(lambda: len(_hit(seen, log)) >= IN_FORCE)
    time.sleep(chance.uniform(0, BEFORE_S))
    handles += dispatcher.submit_many(_plans(IN_FORCE, LATE_LASTS_S, chance), timeout_sec=TIMEOUT_S)
    time.sleep(chance.uniform(0, LATE_BEFORE_S))
    killed = _kill_all(made)
    time.sleep(DOWN_FOR_S)
    restarted = time.time()
    made.start()
    give_up_at = time.monotonic() + SETTLE_S
    outcomes = [outcome(dispatcher, handle.id, give_up_at) for handle in handles]
    left = _left(made, dispatcher, give_up_at)
    seen += log.news()
    return Round(
        in_force=len({each.path for each in seen if each.faulted and killed - 1 < each.sent < killed}),
        outlived_s=max((each.answered - killed for each in _outliving(seen, killed, restarted)), default=0.0),
        failed=sum(each.failed for each in seen),
        requests=len(seen),
        outcomes=Counter(type(each).__name__ for each in outcomes),
        unresolved=sum(map(_is_unresolved, outcomes)) + left,
    )


def _plans(first: int, lasts_s: tuple[int, int], chance: random.Random) -> list[FaultPlan]:
    numbers = range(first, first + IN_FORCE)
    return [
        plan(number, chance.randint(*lasts_s)).model_copy(update={"abort_http_status": FAULTED})
        for number in numbers
    ]


def _hit(seen: list[Request], log: Log) -> set[str]:
    """Targets whose requests have met a fault. What is new in the log is added to `seen`."""
    seen += log.news()
    return {each.path for each in seen if each.faulted}


def _kill_all(made: Stage) -> float:
    """Kill -9 all of it at once; when, in seconds since 1970."""
    killed = time.time()
    with ThreadPoolExecutor(len(made.parts)) as pool:
        list(pool.map(Process.kill, made.parts))
    return killed


def _outliving(seen: list[Request], killed: float, restarted: float) -> Iterator[Request]:
    """Requests that met a fault although everything was dead."""
    return (each for each in seen if each.faulted and killed < each.sent < restarted)


def _left(made: Stage, dispatcher: Dispatcher, give_up_at: float) -> int:
    """How many faults the workers or the Executor still have, once they had time to end them."""
    left = -1
    while left and time.monotonic() < give_up_at:
        with suppress(LedgerUnavailableError, OSError):
            left = len(dispatcher.active()) + len(made.ask_executor("/v1/faults")["faults"])
    return abs(left)


def _is_unresolved(outcome: RawObservation | Exception) -> bool:
    return isinstance(outcome, PlanUnknownError | ResultTimeoutError)


@contextmanager
def _bystanders(folder: Path, service_port: int, proxy_port: int) -> Iterator[Log]:
    """The service and its clients, whose log this is."""
    log = folder / "requests.log"
    program = [sys.executable, "-m", "campaigns.dead_man.bystanders"]
    service = Process(Command([*program, "serve", str(service_port)]), folder / "service.log")
    clients = Process(Command([*program, "send", str(proxy_port), str(log)]), folder / "clients.log")
    try:
        service.start()
        until(lambda: _listens(service_port))
        clients.start()
        requests = Log(log)
        until(lambda: bool(requests.news()))
        yield requests
    finally:
        clients.kill()
        service.kill()


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


if __name__ == "__main__":
    main()
