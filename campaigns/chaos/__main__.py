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
`--kills` are those of workers, and `--for-seconds` is how long plans and chaos last.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import Counter
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.queues.contenders import open_contender
from benchmarks.stage.plans import api, paced, plan
from benchmarks.stage.program import run, seeded
from benchmarks.stage.stage import stage
from campaigns.chaos.acts import Chaos
from campaigns.chaos.bad_messages import BadMessages
from campaigns.chaos.counting_executor import Fault, faults_in
from campaigns.chaos.tally import KINDS, Ended, doubled, report, tally
from campaigns.fleet import IMPATIENT, outcomes
from dispatcher import Dispatcher, LedgerUnavailableError

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable, Iterator

    import redis

    from benchmarks.stage.stage import Stage

DURATION_S = 2
TIMEOUT_S = 60
SETTLE_S = 120.0
AT_ONCE = 20
"""Messages that one act drops or doubles."""

PEER = "celery_retry"
PEER_VISIBILITY_TIMEOUT_S = 10
JOURNAL = "journal"


def main(
    plans: int = 2000,
    kills: int = 40,
    redis_kills: int = 5,
    workers: int = 4,
    for_seconds: float = 100.0,
    seed: int | None = None,
    *,
    peer: bool = False,
) -> None:
    """Run the campaign and print how it ended."""
    chance = seeded(seed)
    serves = ["campaigns.chaos.counting_executor", "{port}", f"{{folder}}/{JOURNAL}"]
    with stage(serves, appendfsync="always") as made:
        campaign = Campaign(made, chance, plans, kills, redis_kills, for_seconds)
        counts = campaign.run_peer(workers) if peer else campaign.run_dispatcher(workers)
        ended, logs = made.workers_ended, made.logs()
    if ended:
        print(f"workers have ended by themselves, {ended} times" + ("" if peer else f":\n{logs}"))
    name = "plain celery" if peer else "campaign"
    print(f"{name}: plans={plans} " + " ".join(f"{kind}={counts[kind]}" for kind in KINDS))
    sys.exit(0 if peer else int(ended > 0 or any(counts[kind] for kind in KINDS)))


@dataclass
class Campaign:
    """Plans and chaos on one stage."""

    made: Stage
    chance: random.Random
    plans: int
    kills: int
    redis_kills: int
    for_s: float

    def run_dispatcher(self, workers: int) -> Counter[str]:
        """The campaign with this project."""
        made, submitted = self.made, list[str]()
        made.start_workers(workers, IMPATIENT)
        with (
            Dispatcher(made.settings) as dispatcher,
            made.redis_client() as client,
            closing(BadMessages(made.settings, client, self.chance)) as messages,
        ):
            acts = [
                lambda: drop(client, made.settings.queue),
                lambda: messages.duplicate(submitted, AT_ONCE),
                lambda: messages.throw(submitted),
            ]
            with self._disturbed(acts):
                for number in paced(self.plans, self.plans / (self.for_s * 0.9)):
                    submitted += [submit(dispatcher, number)]  # one by one, because `acts` read it meanwhile
            found = outcomes(dispatcher, submitted, SETTLE_S)
        records = made.records(submitted)
        ended = {number: Ended.of(*each) for number, each in enumerate(zip(found, records, strict=True))}
        faults = self._faults()
        report(ended, faults)
        return tally(ended, faults)

    def run_peer(self, workers: int) -> Counter[str]:
        """The campaign with plain Celery."""
        os.environ["PEER_VISIBILITY_TIMEOUT_S"] = str(PEER_VISIBILITY_TIMEOUT_S)
        handles: list[object] = []
        with open_contender(PEER, self.made) as contender:
            self.made.add_workers(contender.workers(workers))
            with self._disturbed([]):
                for number in paced(self.plans, self.plans / (self.for_s * 0.9)):
                    while len(handles) == number:
                        with suppress(
                            Exception
                        ):  # Celery raises errors of several libraries if Redis is away
                            handles.append(contender.submit(contender.plan(number, DURATION_S)))
            with self.made.supervised():
                endings = contender.endings(handles, SETTLE_S)
        faults = self._faults()
        targets = {fault.apply_id: fault.api for fault in faults}
        counts = Counter(lost=endings.count(None), doubled=doubled(faults))
        for number, ended in enumerate(endings):
            counts["wrong"] += ended is not None and targets[ended.apply_id] != api(number)
        return counts

    @contextmanager
    def _disturbed(self, acts: Iterable[Callable[[], None]]) -> Iterator[None]:
        """Chaos during the context and until all acts are done. Workers that end are started again."""
        chaos = Chaos(self.made, self.chance, kills=self.kills, redis_kills=self.redis_kills, more=acts)
        disturber = threading.Thread(target=chaos.run, args=[self.for_s])
        with self.made.supervised():
            disturber.start()
            yield
            disturber.join()

    def _faults(self) -> list[Fault]:
        return list(faults_in(self.made.folder / JOURNAL).values())


def submit(dispatcher: Dispatcher, number: int) -> str:
    """Submit plan `number` as often as it takes, because the same id is the same plan. Returns the id."""
    one, plan_id = plan(number, DURATION_S), f"plan-{number}"
    while True:
        with suppress(LedgerUnavailableError):
            return dispatcher.submit(one, plan_id=plan_id, timeout_sec=TIMEOUT_S).id


def drop(client: redis.Redis, queue: str) -> None:
    """Lose some of the messages that come next."""
    for _ in range(AT_ONCE):
        client.rpop(queue)
        time.sleep(0.01)


if __name__ == "__main__":
    run(main, __doc__)
