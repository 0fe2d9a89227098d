"""How fast the history of many plans is read, and what its index costs.

`python -m benchmarks.loads.history`. Exit code 1 if a bound is broken. A Redis with an append-only file gets
100,000 plans that have ended. Then the history is read by new clients, and plans are submitted with and
without the index in turns, on top of the others. Without it means: by the same script, without the lines
that write history and batch members.

    first_page_ms  the first page of 50 plans, with the connection that it needs; the median of 21 clients
    submit_ratio   plans a second of processor time with the index over the same without: of submitter and
                   Redis, Celery messages included. Other programs on the machine do not change it
"""

from __future__ import annotations

import statistics
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from benchmarks.stage.plans import plan
from benchmarks.stage.program import Bound, conclude, run
from benchmarks.stage.stage import Stage, stage
from dispatcher import Dispatcher, RawObservation
from dispatcher.ledger import ledger as ledger_module
from dispatcher.ledger.connection import worker_client
from dispatcher.ledger.leases import Lease, Leases, Named, Settlement
from dispatcher.ledger.ledger import connect
from dispatcher.ledger.record import Order
from dispatcher.ledger.scripts import Script
from dispatcher.ledger.submission import Submission
from dispatcher.tasks.app import make_celery
from dispatcher.tasks.results import ResultCodec

if TYPE_CHECKING:
    from collections.abc import Iterator

    import redis

PAGE = 500
READS = 21
SHOWN = 50
FIRST_PAGE_MS = 200.0
SUBMIT_RATIO = 0.95
WRITES_INDEX = (
    "redis.call('ZADD', prefix .. 'history', whole(now_us), id)",
    "redis.call('RPUSH', prefix .. 'batch:' .. batch, id)",
)
"""The lines of the script `submit` that write the index."""


def main(plans: int = 100_000, turns: int = 24, burst: int = 500) -> None:
    """Measure, print, and exit with 1 if a bound is broken.

    Half of the `turns` of submissions are without index. Each is of `burst` plans.
    """
    with stage() as made, made.redis_client() as client:
        fill(made, plans)
        print_bytes(client, plans)
        first_ms = first_page_ms(made)
        ratio = submit_ratio(made, client, turns, burst)
    bounds = [Bound("first page, ms", first_ms, at_most=FIRST_PAGE_MS)]
    bounds += [Bound("submission with the index over that without", ratio, at_least=SUBMIT_RATIO)]
    conclude("history", f"plans={plans} first_page_ms={first_ms:.0f} submit_ratio={ratio:.2f}", bounds)


def fill(made: Stage, plans: int) -> None:
    """Have this many plans in Redis that have ended, in batches of `PAGE`."""
    ledger, leases = connect(made.settings), Leases(worker_client(made.settings), made.settings)
    results = ResultCodec(make_celery(made.settings))
    for first in range(0, plans, PAGE):
        submissions = [submission(number, f"b{first}") for number in range(first, min(first + PAGE, plans))]
        ledger.submit(submissions)
        fetched = leases.fetch([Named(each.plan_id, 0) for each in submissions], 0)
        leases.settle([ending(results, lease) for lease in fetched.named if isinstance(lease, Lease)])
    ledger.close()


def submission(number: int, batch: str) -> Submission:
    """Plan `number`, of a batch."""
    order = Order(plan=plan(number, prefix="/past"), timeout_ms=30_000)
    return Submission(f"{batch}-{number % PAGE}", order, batch=batch, tags=("search",))


def ending(results: ResultCodec, lease: Lease) -> Settlement:
    """The settlement of a plan with its observation."""
    plan_id, now = lease.plan_id, datetime.now(UTC)
    seen = RawObservation(execution_id=plan_id, timestamp=now, requests=100, error_rate=1.0, status_code=503)
    stored = results.encode(plan_id, seen)
    return Settlement(plan_id, lease.token, "end", ["observed", plan_id, "", results.key(plan_id), stored, 0])


def print_bytes(client: redis.Redis, plans: int) -> None:
    """What the index takes of Redis's memory, for each plan."""
    whole = client.info("memory")["used_memory_dataset"]
    keys = {"history": ["{dispatcher}:history"], "endings": ["{dispatcher}:endings"]}
    keys["batches"] = list(client.scan_iter("{dispatcher}:batch:*", count=1000))
    sizes = {name: sum(client.memory_usage(key, samples=0) or 0 for key in of) for name, of in keys.items()}
    shown = " ".join(f"{name}={size / plans:.0f}" for name, size in sizes.items())
    print(f"bytes of a plan: {shown} all={whole / plans:.0f}", flush=True)


def first_page_ms(made: Stage) -> float:
    """What a new client takes for its first page: the median of all clients."""
    taken_s = []
    for _ in range(READS):
        with Dispatcher(made.settings) as dispatcher:
            begun = time.perf_counter()
            dispatcher.history_page(limit=SHOWN)
            taken_s.append(time.perf_counter() - begun)
    return statistics.median(taken_s) * 1000


def submit_ratio(made: Stage, client: redis.Redis, turns: int, burst: int) -> float:
    """The ratio of both rates. The turns go: with, without, without, with ..."""
    spent_us: dict[bool, list[float]] = {True: [], False: []}
    with Dispatcher(made.settings) as dispatcher:
        for with_index in (True, False):
            submit_us(made, dispatcher, burst, with_index=with_index)  # loads the scripts
        for turn in range(turns):
            with_index = turn % 4 in {0, 3}
            before = client.zcard("{dispatcher}:history")
            spent_us[with_index].append(submit_us(made, dispatcher, burst, with_index=with_index))
            grown = client.zcard("{dispatcher}:history") - before
            if grown != (burst if with_index else 0):
                raise RuntimeError(f"the index has grown by {grown}")
    cpu_us = {with_index: statistics.fmean(each) for with_index, each in spent_us.items()}
    print(f"submission with and without index: cpu_us={cpu_us[True]:.0f} {cpu_us[False]:.0f}", flush=True)
    return cpu_us[False] / cpu_us[True]


def submit_us(made: Stage, dispatcher: Dispatcher, burst: int, *, with_index: bool) -> float:
    """Processor time of submitter and Redis for each of `burst` plans, in microseconds."""
    plans = [plan(number, prefix=f"/{time.monotonic_ns()}") for number in range(burst)]
    with index(written=with_index):
        before_s = time.process_time() + made.redis.cpu_s()
        dispatcher.submit_many(plans)
        return (time.process_time() + made.redis.cpu_s() - before_s) / burst * 1e6


@contextmanager
def index(*, written: bool) -> Iterator[None]:
    """Submissions write the index, or do not."""
    whole = ledger_module.SUBMIT
    if not written:
        ledger_module.SUBMIT = without_index(whole)
    try:
        yield
    finally:
        ledger_module.SUBMIT = whole


def without_index(script: Script) -> Script:
    """The same script without those lines."""
    text = script.text
    for line in WRITES_INDEX:
        if line not in text:
            raise RuntimeError(f"the script submit has no line {line}")
        text = text.replace(line, "")
    return Script.with_text(text)


if __name__ == "__main__":
    run(main, __doc__)
