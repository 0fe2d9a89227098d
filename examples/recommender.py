"""A Recommender: searches for the fault that hurts most, with a Bayesian optimiser (Optuna's TPE sampler).

It asks the optimiser for several faults at a time, has the dispatcher carry them out side by side, and tells
the optimiser what was observed. Run `dispatcher up` in one terminal, and in another one, after the exports
that it prints:

    python examples/recommender.py --rounds 5
"""

from __future__ import annotations

import argparse

import optuna

from dispatcher import Dispatcher, ExecutorClientError, FaultPlan, FaultType, RawObservation

TARGETS = (
    "PaymentService /api/v1/payment/process",
    "OrderService /api/v1/orders",
    "InventoryService /api/v1/stock",
)
AT_ONCE = 3
DURATION_SECONDS = 2
SLOW_MS = 500.0


def main() -> None:
    """Search, and print the worst fault that was found."""
    parser = argparse.ArgumentParser(description="Search for the fault that hurts most.")
    parser.add_argument("--rounds", type=int, default=5, help="of %(default)s rounds", metavar="N")
    parser.add_argument("--seed", type=int, default=None, help="to repeat a search")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with Dispatcher() as dispatcher:
        study = search(dispatcher, rounds=options.rounds, seed=options.seed)
    worst = study.best_trial
    print(f"worst of {len(study.trials)}: {worst.user_attrs['plan']} -> harm {worst.value:.2f}")


def search(dispatcher: Dispatcher, *, rounds: int, seed: int | None = None) -> optuna.Study:
    """The search, with all that was tried. A plan that fails is a trial that failed: the search goes on."""
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    for number in range(1, rounds + 1):
        trials = [study.ask() for _ in range(AT_ONCE)]
        batch = dispatcher.submit_many(propose(trial) for trial in trials)
        for trial, result in zip(trials, batch.results(timeout=120), strict=True):
            if isinstance(result, ExecutorClientError):
                print(f"round {number}: {trial.user_attrs['plan']}: {result}")
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
            else:
                print(f"round {number}: {trial.user_attrs['plan']} -> harm {harm(result):.2f}")
                study.tell(trial, harm(result))
    return study


def propose(trial: optuna.Trial) -> FaultPlan:
    """The fault that the optimiser would try next."""
    service, api = trial.suggest_categorical("target", TARGETS).split()
    kind = FaultType(trial.suggest_categorical("kind", ["delay", "abort"]))
    percentage = trial.suggest_int("percentage", 10, 100, step=10)
    what: dict[str, object] = {"abort_http_status": 503}
    if kind is FaultType.DELAY:
        what = {"delay_seconds": trial.suggest_float("delay_seconds", 0.1, 1.0)}
    where = {"service": service, "api": api, "fault_type": kind, "percentage": percentage}
    plan = FaultPlan.model_validate({**where, **what, "duration_seconds": DURATION_SECONDS})
    trial.set_user_attr("plan", str(plan))
    return plan


def harm(observation: RawObservation) -> float:
    """How much a fault hurts: errors count in full, latency as far as it is slow. From 0 to 1."""
    return max(observation.error_rate, min(1.0, observation.latency_ms / SLOW_MS) / 2)


if __name__ == "__main__":
    main()
