"""The chaos campaign: plans are carried out while every part is killed, stopped and disturbed at random.

`python -m campaigns.chaos --plans 2000`. Real workers, a real Redis that syncs its
append-only file before it answers, an Executor that keeps a journal of all faults. Workers, Redis and
Executor are killed; workers hang; the Executor hangs or answers nonsense; Redis answers with errors; messages
get lost, are sent twice, or are nonsense. At the end each plan is compared with the Executor's journal:

    lost      a plan without an observation or a typed error
    doubled   a plan that was applied more than once
    stranded  a fault that was alive after its plan had ended and its target was free for others
    wrong     an observation of another plan's fault

Exit code 1 if there is one of these, or if a worker has ended by itself. `--peer` runs the campaign against
plain Celery, without the acts on messages. The same seed gives the same acts in the same order.
"""

from __future__ import annotations

import argparse
import random
import sys
import threading
import time
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING

from benchmarks.stage import celery_worker, stage
from benchmarks.stage.plans import plan
from campaigns.chaos import peer
from campaigns.chaos.acts import Chaos
from campaigns.chaos.bad_messages import BadMessages
from campaigns.chaos.counting_executor import Journal
from campaigns.chaos.tally import KINDS, Ended, doubled, report, tally
from dispatcher import Dispatcher, ExecutorClientError, LedgerUnavailableError
from dispatcher.ledger.ledger import connect
from dispatcher.tasks.app import make_celery

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Iterator, Mapping

    import redis

    from benchmarks.stage import Stage
    from dispatcher import RawObservation
    from dispatcher.ledger.record import PlanRecord

DURATION_S = 2
TIMEOUT_S = 60
SETTLE_S = 120.0
AT_ONCE = 20
"""Messages that one act drops or doubles."""

EXECUTOR = "DISPATCHER_EXECUTORS__DEFAULT__"
OPTIONS = {
    f"{EXECUTOR}CONNECTION_TIMEOUT_SEC": "1",
    f"{EXECUTOR}READ_TIMEOUT_SEC": "2",
    # Episodes are short: a breaker that stays open for a minute would hide the other acts.
    f"{EXECUTOR}CIRCUIT_BREAKER_TIMEOUT_SEC": "1",
    f"{EXECUTOR}CIRCUIT_BREAKER_MAX_TIMEOUT_SEC": "2",
    f"{EXECUTOR}CIRCUIT_BREAKER_ON_OPEN": "defer",
    f"{EXECUTOR}CIRCUIT_BREAKER_RECOVERY_PER_SEC": "200",
}


def main() -> None:
    """Run the campaign and print how it ended."""
    parser = argparse.ArgumentParser(prog="python -m campaigns.chaos", description=__doc__)
    parser.add_argument("--plans", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=40, help="of workers")
    parser.add_argument("--redis-kills", type=int, default=5)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--for-seconds", type=float, default=100.0, help="of plans and chaos")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--peer", action="store_true", help="run plain Celery instead")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    with stage(counting=True, appendfsync="always") as made:
        campaign = run_peer if options.peer else run_dispatcher
        counts = campaign(made, options, random.Random(options.seed))  # noqa: S311 (chaos is not a secret)
        ended, logs = made.workers_ended, made.logs()
    if ended:
        print(f"workers have ended by themselves, {ended} times" + ("" if options.peer else f":\n{logs}"))
    name = "plain celery" if options.peer else "campaign"
    print(f"{name}: plans={options.plans} " + " ".join(f"{kind}={counts[kind]}" for kind in KINDS))
    sys.exit(0 if options.peer else int(ended > 0 or any(counts[kind] for kind in KINDS)))


def run_dispatcher(made: Stage, options: argparse.Namespace, chance: random.Random) -> Counter[str]:
    """The campaign with this project."""
    environment = made.environment | OPTIONS
    made.add_workers([celery_worker("workers.app", number, environment) for number in range(options.workers)])
    with make_celery(made.settings) as app:
        made.wait_for_workers(app)
    submitted: list[str] = []
    with (
        Dispatcher(made.settings) as dispatcher,
        made.redis_client() as client,
        closing(BadMessages(made.settings, client, chance)) as messages,
    ):
        acts = {
            "dropped messages": lambda: drop(client, made.settings.queue),
            "doubled messages": lambda: messages.duplicate(submitted, AT_ONCE),
            "bad messages": lambda: messages.throw(submitted),
        }
        with disturbed(made, options, chance, acts) as chaos:
            for number in paced(options):
                submitted += [submit(dispatcher, number)]  # one by one, because `acts` read it meanwhile
        plans = endings(made, dispatcher, submitted)
    faults = list(Journal(made.journal).faults.values())
    report(plans, faults, chaos.events)
    return tally(plans, faults)


def run_peer(made: Stage, options: argparse.Namespace, chance: random.Random) -> Counter[str]:
    """The campaign with plain Celery."""
    task = peer.start(made, options.workers)
    with disturbed(made, options, chance, {}):
        results = peer.submit_all(task, paced(options), DURATION_S)
    with made.supervised():
        counts = peer.tally(results, SETTLE_S)
    results.clear()  # they unsubscribe, which needs Redis
    counts["doubled"] = doubled(list(Journal(made.journal).faults.values()))
    return counts


@contextmanager
def disturbed(
    made: Stage, options: argparse.Namespace, chance: random.Random, acts: Mapping[str, Callable[[], None]]
) -> Iterator[Chaos]:
    """Chaos during the context and until all acts are done. Workers that end are started again."""
    chaos = Chaos(made, chance, kills=options.kills, redis_kills=options.redis_kills, more=acts)
    disturber = threading.Thread(target=chaos.run, args=[options.for_seconds])
    with made.supervised():
        disturber.start()
        yield chaos
        disturber.join()


def paced(options: argparse.Namespace) -> Iterator[int]:
    """The numbers of the plans, evenly over most of the time."""
    gap_s = options.for_seconds * 0.9 / options.plans
    begun = time.monotonic()
    for number in range(options.plans):
        time.sleep(max(0.0, begun + number * gap_s - time.monotonic()))
        yield number


def submit(dispatcher: Dispatcher, number: int) -> str:
    """Submit plan `number` as often as it takes, because the same id is the same plan. Returns the id."""
    while True:
        with suppress(LedgerUnavailableError):
            handle = dispatcher.submit(
                plan(number, DURATION_S), plan_id=f"plan-{number}", timeout_sec=TIMEOUT_S
            )
            return handle.id


def drop(client: redis.Redis, queue: str) -> None:
    """Lose some of the messages that come next."""
    for _ in range(AT_ONCE):
        client.rpop(queue)
        time.sleep(0.01)


def endings(made: Stage, dispatcher: Dispatcher, plan_ids: list[str]) -> dict[int, Ended]:
    """How the plans ended, by their numbers."""
    give_up_at = time.monotonic() + SETTLE_S
    outcomes = [outcome(dispatcher, plan_id, give_up_at) for plan_id in plan_ids]
    with closing(connect(made.settings)) as ledger:
        records = ledger.read(plan_ids)
    return dict(enumerate(map(ending, outcomes, records)))


def outcome(dispatcher: Dispatcher, plan_id: str, give_up_at: float) -> RawObservation | Exception:
    """How the plan ended."""
    while True:
        try:
            return dispatcher.handle(plan_id).result(max(0.0, give_up_at - time.monotonic()))
        except LedgerUnavailableError:
            continue
        except ExecutorClientError as error:
            return error


def ending(outcome: RawObservation | Exception, record: PlanRecord | None) -> Ended:
    """The same, with the times of the plan's record."""
    if record is None or record.ended_ms is None:
        return Ended(outcome)
    released_ms = max(record.ended_ms, record.released_ms or 0)
    return Ended(outcome, record.submitted_ms / 1000, record.ended_ms / 1000, released_ms / 1000)


if __name__ == "__main__":
    main()
