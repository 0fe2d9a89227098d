"""Misbehaviour: 200 plans, and an Executor that does something wrong with each.

`python -m campaigns.misbehaviour`. Each plan must end with an observation whose doubts name what was done,
or with a typed error that says so; `ACCEPTED` has both. A plan that ends otherwise is unnoticed. Another
20 plans are treated well, and must have a true observation without a doubt. Exit code 1 if a plan is
unnoticed, or if one of those 20 is in doubt. The same seed gives the same misdeeds.
"""

from __future__ import annotations

import sys
from collections import Counter
from typing import TYPE_CHECKING

from benchmarks.stage.program import print_table, run
from benchmarks.stage.stage import default_executor, stage
from campaigns.fleet import cancel_once_running, released_at
from campaigns.misbehaviour.acts import CANCELLED, Act, misdeed_of, plan_of
from campaigns.misbehaviour.ends import Ended
from dispatcher import Dispatcher

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.stage.stage import Stage

TREATED_WELL = 20
WORKERS = 2
TIMEOUT_S = 10.0
WITHIN_S = 180.0

OPTIONS = default_executor(
    read_timeout_sec=1.5,
    check_interval_sec=0.5,
    stop_confirmation_sec=4,
    max_log_bytes=5000,
    initial_retry_delay_sec=0.2,
    max_retry_delay_sec=1,
    # One plan's misdeed must not excuse another plan.
    circuit_breaker_enabled=False,
    retry_budget_enabled=False,
)


def main(plans: int = 200, seed: int = 18) -> None:
    """Carry out the plans, print, and exit with 1 if one seems normal, or a good one does not."""
    print(f"seed {seed}", flush=True)
    with stage(["campaigns.misbehaviour.executor", "{port}", str(seed), str(plans)]) as made:
        ended = carry_out(made, seed, plans)
    report(ended)
    unnoticed = sum(not each.noticed for each in ended if each.act is not Act.WELL)
    alarmed = sum(not each.noticed for each in ended if each.act is Act.WELL)
    print(f"treated well: plans={TREATED_WELL} in_doubt={alarmed}")
    print(f"misbehaviour: plans={plans} unnoticed={unnoticed}")
    sys.exit(int(unnoticed + alarmed > 0))


def carry_out(made: Stage, seed: int, plans: int) -> list[Ended]:
    """How all plans ended, in the order of their numbers."""
    made.start_workers(WORKERS, OPTIONS)
    numbers = range(plans + TREATED_WELL)
    acts = [misdeed_of(seed, number, plans).act for number in numbers]
    with Dispatcher(made.settings) as dispatcher:
        every = [plan_of(seed, number, plans) for number in numbers]
        batch = dispatcher.submit_many(every, timeout_sec=TIMEOUT_S)
        handles = list(batch)
        for handle, act in zip(handles, acts, strict=True):
            if act in CANCELLED:
                cancel_once_running(handle)
        outcomes = batch.results(WITHIN_S)
    ended_at = map(released_at, made.records([handle.id for handle in handles]))
    journal = made.ask_executor("/journal")
    return [
        Ended(act, outcome, at, journal.get(str(number)))
        for number, (act, outcome, at) in enumerate(zip(acts, outcomes, ended_at, strict=True))
    ]


def report(ended: Sequence[Ended]) -> None:
    """Print how the plans ended, by what was done to them."""
    rows = []
    for act in Act:
        of_it = [each for each in ended if each.act is act]
        counts = Counter(", ".join(sorted(each.words)) or "looks normal, is wrong" for each in of_it)
        how = "; ".join(f"{count} x {words}" for words, count in counts.most_common())
        rows.append([act, str(len(of_it)), str(sum(not each.noticed for each in of_it)), how])
    print_table(["what was done", "plans", "unnoticed", "how they ended"], rows)
    for number, each in enumerate(ended):
        if not each.noticed:
            print(f"plan {number} ({each.act}): {each.outcome!r}, but true is {each.truth}"[:600])


if __name__ == "__main__":
    run(main, __doc__)
