"""A Recommender: searches for the fault that hurts most, with a Bayesian optimiser (Optuna's TPE sampler).

First it observes each target without a fault. Then it asks the optimiser for several faults at a time, has
the dispatcher carry them out side by side. It reports to the optimiser how much each of them hurts. Run
`dispatcher up` in one terminal, and in another one, after the exports that it prints:

    python examples/recommender.py --rounds 20 --until 0.5 --search monday

It finds the weakness of the sample services (executor/sample_service.py). Killed and started again, the
search "monday" continues: a plan's id is the name of the search and the number of the trial. The same plan
under the same id is one plan, even if it is submitted again.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING, TypeVar

import optuna
from optuna.trial import TrialState

from dispatcher import (
    CircuitOpenError,
    Dispatcher,
    DispatchHaltedError,
    Doubt,
    ExecutorClientError,
    FaultPlan,
    FaultType,
    LedgerUnavailableError,
    RawObservation,
    ResultTimeoutError,
    effect_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

Key = TypeVar("Key", int, str)

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

OPENED_BY_HAND_S = 30.0
"""How long to wait before plans are submitted again to an Executor whose circuit breaker a person opened."""

AT_RANDOM = 40
"""Trials before the optimiser draws conclusions. Most faults do no harm, and teach it nothing."""

UNUSABLE = {Doubt.LATE, Doubt.SHORT, Doubt.LONG, Doubt.WRONG_DOSE, Doubt.OVERLAPPED}
"""An observation with one of these doubts is of another fault than the one that was asked for."""

GOES_ON = (DispatchHaltedError, LedgerUnavailableError, ResultTimeoutError)
"""Errors that say nothing of the fault: its plan goes on, or can be submitted later."""


def main() -> None:
    """Search, and print the worst fault that was found."""
    parser = argparse.ArgumentParser(description="Search for the fault that hurts most.")
    parser.add_argument("--rounds", type=int, default=5, help="of %(default)s rounds", metavar="N")
    parser.add_argument("--until", type=float, default=1.1, help="stop at a fault that hurts so much, 0 to 1")
    parser.add_argument("--seed", type=int, default=None, help="to repeat a search")
    parser.add_argument("--search", metavar="NAME", help="keep it in NAME.db, and go on with it next time")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        study_name=options.search,
        storage=options.search and f"sqlite:///{options.search}.db",
        load_if_exists=True,
        direction="maximize",
        sampler=sampler(options.seed),
    )
    try:
        with Dispatcher() as dispatcher:
            search(dispatcher, study, options.rounds, options.until)
    except ExecutorClientError as error:
        sys.exit(f"the search is interrupted: {error}")
    if not observed(study):
        sys.exit("no fault was observed")
    worst = study.best_trial
    plan = FaultPlan.model_validate_json(worst.user_attrs["plan"])
    print(f"worst of {ended(study)}: {plan} -> harm {worst.value:.2f}")


def sampler(seed: int | None) -> optuna.samplers.BaseSampler:
    """The optimiser."""
    return optuna.samplers.TPESampler(n_startup_trials=AT_RANDOM, seed=seed)


def search(dispatcher: Dispatcher, study: optuna.Study, rounds: int, until: float) -> None:
    """Ask for faults, have them carried out, and report the outcomes, until so many rounds are done."""
    quiet = baselines(dispatcher, study.study_name)
    plans = begun(study)
    report(study, plans, carry_out(dispatcher, study.study_name, plans), quiet)
    while ended(study) < rounds * AT_ONCE and not (observed(study) and study.best_value >= until):
        plans = {trial.number: propose(trial) for trial in (study.ask() for _ in range(AT_ONCE))}
        report(study, plans, carry_out(dispatcher, study.study_name, plans), quiet)


def baselines(dispatcher: Dispatcher, name: str) -> dict[str, RawObservation]:
    """What each target is like without a fault: a plan that hits 0 % injects none."""
    nothing = {"fault_type": "delay", "delay_seconds": 0.1, "percentage": 0}
    plans = {
        f"baseline-{number}": plan_of(nothing | {"target": target}) for number, target in enumerate(TARGETS)
    }
    quiet = {}
    for key, outcome in carry_out(dispatcher, name, plans).items():
        if isinstance(outcome, ExecutorClientError):
            raise outcome
        quiet[target_of(plans[key])] = outcome
    return quiet


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


def observed(study: optuna.Study) -> bool:
    """Whether any trial has a value."""
    return bool(study.get_trials(deepcopy=False, states=[TrialState.COMPLETE]))


def carry_out(
    dispatcher: Dispatcher, name: str, plans: Mapping[Key, FaultPlan]
) -> dict[Key, RawObservation | ExecutorClientError]:
    """Have the plans carried out side by side. Raises an error only if a plan's outcome is not yet known."""
    handles = {
        key: dispatcher.submit(
            plan,
            plan_id=f"{name}-{key}",
            timeout_sec=TIMEOUT_SEC,
            expires=EXPIRES_SEC,
            conflict_policy="queue",  # two faults on one target would spoil both observations
        )
        for key, plan in plans.items()
    }
    outcomes: dict[Key, RawObservation | ExecutorClientError] = {}
    for key, handle in handles.items():
        try:
            outcomes[key] = handle.result(timeout=EXPIRES_SEC + DURATION_SECONDS + TIMEOUT_SEC + 10)
        except GOES_ON:
            raise
        except ExecutorClientError as error:
            outcomes[key] = error
    return outcomes


def report(
    study: optuna.Study,
    plans: Mapping[int, FaultPlan],
    outcomes: Mapping[int, RawObservation | ExecutorClientError],
    quiet: Mapping[str, RawObservation],
) -> None:
    """Give the optimiser the outcomes of its trials. A failed plan is a failed trial."""
    pause_s = 0.0
    for number, outcome in outcomes.items():
        plan = plans[number]
        if isinstance(outcome, ExecutorClientError):
            again, value, words = outcome.retry_safe, None, str(outcome)
            if isinstance(
                outcome, CircuitOpenError
            ):  # a person may have to close it: then ask from time to time
                after_s = OPENED_BY_HAND_S if outcome.retry_after_s is None else outcome.retry_after_s
                pause_s = max(pause_s, after_s)
        else:
            value = harm(plan, outcome, quiet[target_of(plan)])
            again = value is None
            doubts = ", ".join(outcome.doubts) or "figures are missing"
            words = f"not observed as planned: {doubts}" if value is None else f"harm {value:.2f}"
        print(f"trial {number}: {plan} -> {words}")
        study.tell(number, value, state=TrialState.FAIL if value is None else None)
        if again:  # nothing was learned of this fault: it is worth another trial
            study.enqueue_trial(study.trials[number].params)
    time.sleep(pause_s)


def propose(trial: optuna.Trial) -> FaultPlan:
    """The fault that the optimiser would try next. It is stored before it is submitted."""
    point = {
        "target": trial.suggest_categorical("target", TARGETS),
        "fault_type": trial.suggest_categorical("fault_type", ["delay", "abort"]),
        "percentage": trial.suggest_int("percentage", 20, 100, step=10),
        "delay_seconds": trial.suggest_float("delay_seconds", 0.1, 1.0),
        "abort_http_status": 503,
    }
    plan = plan_of(point)
    trial.set_user_attr("plan", plan.model_dump_json(exclude_none=True))
    return plan


def plan_of(point: Mapping[str, object]) -> FaultPlan:
    """The plan of a point, which has a delay and a status at once."""
    service, api = str(point["target"]).split()
    rest = {key: value for key, value in point.items() if key != "target"}
    return FaultPlan.from_point(rest, service=service, api=api, duration_seconds=DURATION_SECONDS)


def target_of(plan: FaultPlan) -> str:
    """What it hits, as in `TARGETS`."""
    return f"{plan.service} {plan.api}"


def harm(plan: FaultPlan, observation: RawObservation, quiet: RawObservation) -> float | None:
    """What share of the requests that a fault hits fails although the fault itself does not make it fail.

    An abort of 50 % makes half of the requests errors: that is its dose. Errors beyond it are a weakness,
    and so is each error that a mere delay causes. The lower end of the interval counts: so much is certain.
    None if the observation does not say.
    """
    if UNUSABLE & set(observation.doubts):
        return None
    effect = effect_of(observation, quiet)
    more_errors = effect.error_rate_difference_low
    if more_errors is None:
        more_errors = effect.error_rate_difference
    if more_errors is None:
        return None
    hit = plan.percentage / 100
    dose = hit if plan.fault_type is FaultType.ABORT else 0.0
    return min(1.0, max(0.0, (more_errors - dose) / hit))


if __name__ == "__main__":
    main()
