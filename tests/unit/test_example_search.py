"""The example finds the weakness of the sample services within 60 trials, in a model of what they do."""

from __future__ import annotations

import importlib.util
import random
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
import pytest
from support.plans import abort_plan, delay_plan

from dispatcher import Doubt, ExecutorClientError, FaultLostError, FaultPlan, FaultType, RawObservation
from executor.sample_service import PATIENCE_S

if TYPE_CHECKING:
    from types import ModuleType

RECOMMENDER = Path(__file__).parents[2] / "examples" / "recommender.py"
WEAK = "InventoryService /api/v1/stock"
REQUESTS = 80


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("example_recommender", RECOMMENDER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return module


class SampleWorld:
    """A substitute for the dispatcher: a fault has at once the effect that it has on the sample services."""

    def __init__(self, seed: int) -> None:
        self._draw = random.Random(seed)
        self.plans: dict[str, FaultPlan] = {}

    def submit(self, plan: FaultPlan, *, plan_id: str, **_: Any) -> Outcome:
        assert self.plans.setdefault(plan_id, plan) == plan
        fails = plan.fault_type is FaultType.ABORT or (
            f"{plan.service} {plan.api}" == WEAK and (plan.delay_seconds or 0.0) > PATIENCE_S
        )
        errors = sum(fails and self._draw.random() < plan.percentage / 100 for _ in range(REQUESTS))
        return Outcome(observed(requests=REQUESTS, error_count=errors, error_rate=errors / REQUESTS))


class Outcome:
    def __init__(self, outcome: RawObservation | ExecutorClientError) -> None:
        self._outcome = outcome

    def result(self, timeout: float | None = None) -> RawObservation:
        if isinstance(self._outcome, ExecutorClientError):
            raise self._outcome
        return self._outcome


def observed(**figures: Any) -> RawObservation:
    return RawObservation(execution_id="f1", timestamp=datetime.now(UTC), **figures)


def study_of(example: ModuleType, seed: int = 1) -> optuna.Study:
    return optuna.create_study(direction="maximize", sampler=example.sampler(seed))


@pytest.mark.parametrize("seed", range(10))
def test_the_weakness_is_found_within_60_trials(
    example: ModuleType, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    study = study_of(example, seed)
    example.search(SampleWorld(seed), study, rounds=20, until=0.5)
    worst = FaultPlan.model_validate_json(study.best_trial.user_attrs["plan"])
    assert example.ended(study) <= 60
    assert study.best_value >= 0.5, capsys.readouterr().out
    assert example.target_of(worst) == WEAK
    assert (worst.delay_seconds or 0.0) > PATIENCE_S


def test_a_fault_hurts_by_what_it_causes_beyond_its_dose(example: ModuleType) -> None:
    quiet = observed(requests=400, error_count=0, error_rate=0.0)
    half = observed(requests=400, error_count=200, error_rate=0.5)
    assert example.harm(abort_plan(percentage=50), half, quiet) == 0
    assert 0.85 < example.harm(delay_plan(percentage=50), half, quiet) < 1
    assert example.harm(delay_plan(percentage=50), observed(error_rate=0.5), quiet) == 1
    assert example.harm(delay_plan(percentage=100), observed(error_rate=0.5), quiet) == 0.5


@pytest.mark.parametrize(
    "figures",
    [{"error_rate": None}, {"error_rate": 0.5, "doubts": (Doubt.SHORT,)}],
    ids=["no error rate", "it was in force for less than planned"],
)
def test_an_observation_that_does_not_say_has_no_harm(example: ModuleType, figures: dict[str, Any]) -> None:
    assert example.harm(delay_plan(), observed(**figures), observed(error_rate=0.0)) is None


def test_a_trial_that_was_not_observed_as_planned_is_repeated(
    example: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    study = study_of(example)
    plans = {trial.number: example.propose(trial) for trial in [study.ask(), study.ask()]}
    outcomes = {0: observed(error_rate=0.5, doubts=(Doubt.LATE,)), 1: FaultLostError("it is gone")}
    example.report(study, plans, outcomes, dict.fromkeys(example.TARGETS, observed(error_rate=0.0)))
    assert [line.split(" -> ")[1] for line in capsys.readouterr().out.splitlines()] == [
        "not observed as planned: late",
        "it is gone",
    ]
    assert example.propose(study.ask()) == plans[0]
    assert example.propose(study.ask()) not in plans.values()


def test_without_baselines_there_is_no_search(example: ModuleType) -> None:
    class Broken(SampleWorld):
        def submit(self, plan: FaultPlan, **_: Any) -> Outcome:
            return Outcome(FaultLostError("it is gone"))

    with pytest.raises(FaultLostError):
        example.search(Broken(1), study_of(example), rounds=1, until=1.0)
