"""What commands print of plans that have ended."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from support.plans import abort_plan

from dispatcher import Doubt, ExecutorClientError, FaultLostError, RawObservation
from dispatcher.cli.outcomes import Outcome, show

if TYPE_CHECKING:
    import pytest


def outcome(plan_id: str = "p1", **figures: Any) -> Outcome:
    fields = {"execution_id": "f1", "timestamp": datetime.now(UTC)} | figures
    return Outcome(plan_id, abort_plan(), RawObservation.model_validate(fields))


def failed(error: ExecutorClientError) -> Outcome:
    return Outcome("p2", abort_plan(), error)


def test_figures_that_were_not_seen_are_dashes(capsys: pytest.CaptureFixture[str]) -> None:
    show([outcome(), outcome(error_rate=0.0), outcome(requests=0, latency_ms=0.0, status_code=200)])
    table = capsys.readouterr().out.splitlines()
    rows = [line.split("100", 1)[1].split() for line in table if "abort 503" in line]
    assert rows == [
        ["-", "-", "-", "-"],
        ["-", "0.00", "-", "-"],
        ["200", "-", "0.0", "ms", "0"],
    ]


def test_each_doubt_is_a_line_with_its_meaning(capsys: pytest.CaptureFixture[str]) -> None:
    show([outcome(doubts=(Doubt.LATE, Doubt.FEW_REQUESTS)), outcome("p3"), failed(FaultLostError("gone"))])
    printed = capsys.readouterr()
    assert printed.out.splitlines()[-2:] == [
        "plan p1: late: the fault began later than planned",
        "plan p1: few_requests: so few requests came that the interval of the error rate is wider than 0.2",
    ]
    assert printed.err == "plan p2: FaultLostError: gone\n"


def test_programs_get_the_doubts_by_their_names() -> None:
    observation = outcome(doubts=(Doubt.LATE,), requests=3).fields["observation"]
    assert isinstance(observation, dict)
    assert (observation["doubts"], observation["requests"]) == (["late"], 3)
    assert "latency_ms" not in observation
