"""A Recommender: searches for the fault that hurts most, with a Bayesian optimiser (Optuna's TPE sampler).

It asks the optimiser for several faults at a time, has the dispatcher carry them out side by side, and
reports the observations to the optimiser. Run `dispatcher up` in one terminal, and in another one, after the
exports that it prints:

    python examples/recommender.py --rounds 5 --search monday

Killed and started again, the search "monday" goes on: a plan's id is the name of the search and
the number of the trial, and the same plan under the same id is one plan, however often it is submitted.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING

import optuna
from optuna.trial import TrialState

from dispatcher import (
    CircuitOpenError,
    Dispatcher,
    DispatchHaltedError,
    ExecutorClientError,
    FaultPlan,
    FaultType,
    LedgerUnavailableError,
    RawObservation,
    ResultTimeoutError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

TARGETS = (
    "PaymentService /api/v1/payment/process",
    "OrderService /api/v1/orders",
    "InventoryService /api/v1/stock",
)
AT_ONCE = 3
DURATION_SECONDS = 2
TIMEOUT_SEC = 20.0
"""What a plan may take beyond its fault's own time."""

EXPIRES_SEC = 60.0
"""What it may wait for a worker, and for its target if another plan has that."""

SLOW_MS = 500.0

GOES_ON = (DispatchHaltedError, LedgerUnavailableError, ResultTimeoutError)
"""Errors that say nothing of the fault: its plan goes on, or can be submitted later."""


def main() -> None:
    """Search, and print the worst fault that was found."""
    parser = argparse.ArgumentParser(description="Search for the fault that hurts most.")
    parser.add_argument("--rounds", type=int, default=5, help="of %(default)s rounds", metavar="N")
    parser.add_argument("--seed", type=int, default=None, help="to repeat a search")
    parser.add_argument("--search", metavar="NAME", help="keep it in NAME.db, and go on with it next time")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        study_name=options.search,
        storage=options.search and f"sqlite:///{options.search}.db",
        load_if_exists=True,
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=options.seed),
    )
    try:
        with Dispatcher() as dispatcher:
            search(dispatcher, study, options.rounds)
    except ExecutorClientError as error:
        sys.exit(f"the search is interrupted: {error}")
    if not study.get_trials(states=[TrialState.COMPLETE]):
        sys.exit("no fault was observed")
    worst = study.best_trial
    print(f"worst of {ended(study)}: {worst.user_attrs['plan']} -> harm {worst.value:.2f}")


def search(dispatcher: Dispatcher, study: optuna.Study, rounds: int) -> None:
    """Ask for faults, have them carried out, and report the outcomes, until so many rounds are done."""
    carry_out(dispatcher, study, begun(study))
    while ended(study) < rounds * AT_ONCE:
        trials = [study.ask() for _ in range(AT_ONCE)]
        carry_out(dispatcher, study, {trial.number: propose(trial) for trial in trials})


def begun(study: optuna.Study) -> dict[int, FaultPlan]:
    """The plans of trials that an earlier run has begun, and whose ends it has not reported to the
    optimiser."""
    plans = {}
    for trial in study.get_trials(states=[TrialState.RUNNING]):
        if "plan" in trial.user_attrs:
            plans[trial.number] = FaultPlan.model_validate_json(trial.user_attrs["plan"])
        else:  # that run was killed before it wrote the plan down, so it was never submitted
            study.tell(trial.number, state=TrialState.FAIL)
    return plans


def ended(study: optuna.Study) -> int:
    """How many trials have ended."""
    return len(study.get_trials(deepcopy=False, states=[TrialState.COMPLETE, TrialState.FAIL]))


def carry_out(dispatcher: Dispatcher, study: optuna.Study, plans: Mapping[int, FaultPlan]) -> None:
    """Have the plans carried out side by side. One that fails is a trial that failed: the search goes on."""
    handles = {
        number: dispatcher.submit(
            plan,
            plan_id=f"{study.study_name}-{number}",
            timeout_sec=TIMEOUT_SEC,
            expires=EXPIRES_SEC,
            conflict_policy="queue",  # two faults on one target would spoil both observations
        )
        for number, plan in plans.items()
    }
    pause_s = 0.0
    for number, handle in handles.items():
        message = f"trial {number}: {plans[number]}"
        try:
            observation = handle.result(timeout=EXPIRES_SEC + DURATION_SECONDS + TIMEOUT_SEC + 10)
        except GOES_ON:
            raise
        except ExecutorClientError as error:
            print(f"{message}: {error}")
            study.tell(number, state=TrialState.FAIL)
            if error.retry_safe:  # nothing was learned of this fault: it is worth another trial
                study.enqueue_trial(study.trials[number].params)
            if isinstance(error, CircuitOpenError):
                pause_s = max(pause_s, error.retry_after_s)
        else:
            print(f"{message} -> harm {harm(observation):.2f}")
            study.tell(number, harm(observation))
    time.sleep(pause_s)


def propose(trial: optuna.Trial) -> FaultPlan:
    """The fault that the optimiser would try next. It is written down before it is submitted."""
    service, api = trial.suggest_categorical("target", TARGETS).split()
    kind = FaultType(trial.suggest_categorical("kind", ["delay", "abort"]))
    percentage = trial.suggest_int("percentage", 10, 100, step=10)
    what: dict[str, object] = {"abort_http_status": 503}
    if kind is FaultType.DELAY:
        what = {"delay_seconds": trial.suggest_float("delay_seconds", 0.1, 1.0)}
    where = {"service": service, "api": api, "fault_type": kind, "percentage": percentage}
    plan = FaultPlan.model_validate({**where, **what, "duration_seconds": DURATION_SECONDS})
    trial.set_user_attr("plan", str(plan))
    trial.set_user_attr("plan", plan.model_dump_json(exclude_none=True))
    return plan


def harm(observation: RawObservation) -> float:
    """How much a fault hurts: errors count in full, latency as far as it is slow. From 0 to 1."""
    return max(observation.error_rate, min(1.0, observation.latency_ms / SLOW_MS) / 2)


if __name__ == "__main__":
    main()
