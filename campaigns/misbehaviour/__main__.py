"""Misbehaviour: 200 plans, and an Executor that does something wrong with each.

`python -m campaigns.misbehaviour`. Each plan must end with an observation whose doubts name what was done,
or with a typed error that says so; `ACCEPTED` has both. A plan that ends otherwise is unnoticed. Another
20 plans are treated well, and must have a true observation without a doubt. Exit code 1 if a plan is
unnoticed, or if one of those 20 is in doubt. The same seed gives the same misdeeds.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.stage import celery_worker, stage, until
from campaigns.misbehaviour.acts import CANCELLED, Act, misdeed_of, plan_of
from dispatcher import Dispatcher, ExecutorClientError, PlanState, RawObservation
from dispatcher.ledger.ledger import connect
from dispatcher.tasks.app import make_celery

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.stage import Stage
    from dispatcher import PlanHandle

TRUE = "true figures"
"""An observation with the right number of requests and the right error rate, and without a doubt."""

IN_DOUBT, LOST, FAILED = "FaultInDoubtError", "FaultLostError", "FaultFailedError"
UNOBSERVED, NOT_READY = "FaultUnobservedError", "MetricsNotReadyError"
TIMEOUT, CONNECTION, PROTOCOL = "ExecutorTimeoutError", "ExecutorConnectionError", "ExecutorProtocolError"
CANCELLED_IN_TIME = "PlanCancelledError"
"""Only if the fault was over by then."""

ACCEPTED = {
    Act.WELL: {TRUE},
    Act.LATE: {"late"},
    Act.EARLY_END: {"short"},
    Act.REMOVED: {"short", "window_unknown"},
    Act.PAUSED: {"wrong_dose", "short"},
    Act.RESUMED: {"late", "short", UNOBSERVED},
    Act.FROZEN: {"long", TIMEOUT, CONNECTION, IN_DOUBT},
    Act.LOST: {LOST, IN_DOUBT},
    Act.RESTARTED: {LOST, IN_DOUBT},
    Act.FAILED: {FAILED},
    Act.TOO_LONG: {"long"},
    Act.ENDLESS: {"long", TIMEOUT},
    Act.UNSTOPPABLE: {IN_DOUBT},
    Act.STOP_SLOW: {CANCELLED_IN_TIME, IN_DOUBT},
    Act.STOP_IGNORED: {IN_DOUBT},
    Act.METRICS_LATE: {TRUE},
    Act.METRICS_NEVER: {NOT_READY, UNOBSERVED, TIMEOUT},
    Act.NO_COUNTS: {"count_unknown"},
    Act.ALL_ZERO: {"count_unknown", UNOBSERVED},
    Act.NO_REQUESTS: {UNOBSERVED},
    Act.FEW_REQUESTS: {"few_requests"},
    Act.NOT_FAULTED: {"wrong_dose"},
    Act.CONTRADICTION: {PROTOCOL},
    Act.NO_WINDOW: {"window_unknown"},
    Act.TRUNCATED: {"truncated"},
}
"""How a plan may end whose fault met the act: a doubt of its observation, or the class of its error.

Metrics that come late are no less true, so `METRICS_LATE` must not change a figure. What happens between two
looks at a fault has an unknown time, unless the Executor says it.
"""

PLANS = 200
TREATED_WELL = 20
WORKERS = 2
TIMEOUT_S = 10.0
WITHIN_S = 180.0
SLACK_S = 0.25

EXECUTOR = "DISPATCHER_EXECUTORS__DEFAULT__"
OPTIONS = {
    f"{EXECUTOR}READ_TIMEOUT_SEC": "1.5",
    f"{EXECUTOR}CHECK_INTERVAL_SEC": "0.5",
    f"{EXECUTOR}STOP_CONFIRMATION_SEC": "4",
    f"{EXECUTOR}MAX_LOG_BYTES": "5000",
    f"{EXECUTOR}INITIAL_RETRY_DELAY_SEC": "0.2",
    f"{EXECUTOR}MAX_RETRY_DELAY_SEC": "1",
    # One plan's misdeed must not excuse another plan.
    f"{EXECUTOR}CIRCUIT_BREAKER_ENABLED": "false",
    f"{EXECUTOR}RETRY_BUDGET_ENABLED": "false",
}


@dataclass(frozen=True)
class Ended:
    """How a plan ended, and what is true of its fault."""

    act: Act
    outcome: RawObservation | ExecutorClientError
    at: float
    """When it ended and its target was free, in seconds since 1970."""

    truth: dict[str, Any] | None
    """None if the Executor knows no fault of it."""

    @property
    def words(self) -> set[str]:
        """The outcome in the words of `ACCEPTED`."""
        if isinstance(self.outcome, RawObservation):
            doubts = {str(doubt) for doubt in self.outcome.doubts}
            return doubts or ({TRUE} if self.true else set())
        if type(self.outcome).__name__ == CANCELLED_IN_TIME and not self.over:
            return {f"{CANCELLED_IN_TIME} while the fault is alive"}
        return {type(self.outcome).__name__}

    @property
    def true(self) -> bool:
        """Whether the observation has the figures that are true."""
        seen, truth = self.outcome, self.truth
        if truth is None or not isinstance(seen, RawObservation):
            return False
        return (seen.requests, seen.error_rate) == (truth["requests"], truth["error_rate"])

    @property
    def over(self) -> bool:
        """Whether the fault was over when the plan had ended."""
        if self.truth is None:
            return True
        ended: float | None = self.truth["ended"]
        return ended is not None and ended <= self.at + SLACK_S

    @property
    def noticed(self) -> bool:
        """Whether the outcome names what was done."""
        return bool(self.words & ACCEPTED[self.act])


def main() -> None:
    """Carry out the plans, print, and exit with 1 if one seems normal, or a good one does not."""
    parser = argparse.ArgumentParser(prog="python -m campaigns.misbehaviour", description=__doc__)
    parser.add_argument("--plans", type=int, default=PLANS)
    parser.add_argument("--seed", type=int, default=18)
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    serves = ["campaigns.misbehaviour.executor", "{port}", str(options.seed), str(options.plans)]
    with stage(serves=serves) as made:
        ended = carry_out(made, options.seed, options.plans)
    report(ended)
    unnoticed = sum(not each.noticed for each in ended if each.act is not Act.WELL)
    alarmed = sum(not each.noticed for each in ended if each.act is Act.WELL)
    print(f"treated well: plans={TREATED_WELL} in_doubt={alarmed}")
    print(f"misbehaviour: plans={options.plans} unnoticed={unnoticed}")
    sys.exit(int(unnoticed + alarmed > 0))


def carry_out(made: Stage, seed: int, plans: int) -> list[Ended]:
    """How all plans ended, in the order of their numbers."""
    environment = made.environment | OPTIONS
    made.add_workers([celery_worker("workers.app", number, environment) for number in range(WORKERS)])
    with make_celery(made.settings) as app:
        made.wait_for_workers(app)
    numbers = range(plans + TREATED_WELL)
    acts = [misdeed_of(seed, number, plans).act for number in numbers]
    with Dispatcher(made.settings) as dispatcher:
        batch = dispatcher.submit_many(
            [plan_of(seed, number, plans) for number in numbers], timeout_sec=TIMEOUT_S
        )
        handles = list(batch)
        for handle, act in zip(handles, acts, strict=True):
            if act in CANCELLED:
                cancel_once_running(handle)
        outcomes = batch.results(WITHIN_S)
    ended_at = ends(made, [handle.id for handle in handles])
    journal = made.ask_executor("/journal")
    return [
        Ended(act, outcome, at, journal.get(str(number)))
        for number, (act, outcome, at) in enumerate(zip(acts, outcomes, ended_at, strict=True))
    ]


def cancel_once_running(handle: PlanHandle) -> None:
    """Cancel a plan once its fault is accepted."""
    until(lambda: handle.status().state is not PlanState.QUEUED)
    handle.cancel("part of the misbehaviour")


def ends(made: Stage, plan_ids: Sequence[str]) -> list[float]:
    """When each plan had ended and its target was free, in seconds since 1970."""
    with closing(connect(made.settings)) as ledger:
        records = ledger.read(plan_ids)
    return [
        0.0 if record is None else max(record.ended_ms or 0, record.released_ms or 0) / 1000
        for record in records
    ]


def report(ended: Sequence[Ended]) -> None:
    """Print how the plans ended, by what was done to them."""
    print(f"{'what was done':<16} {'plans':>5} {'unnoticed':>9}   how they ended")
    for act in Act:
        of_it = [each for each in ended if each.act is act]
        counts = Counter(", ".join(sorted(each.words)) or "looks normal, is wrong" for each in of_it)
        how = "; ".join(f"{count} x {words}" for words, count in counts.most_common())
        print(f"{act:<16} {len(of_it):>5} {sum(not each.noticed for each in of_it):>9}   {how}")
    for number, each in enumerate(ended):
        if not each.noticed:
            print(f"plan {number} ({each.act}): {each.outcome!r}, but true is {each.truth}"[:600])


if __name__ == "__main__":
    main()
