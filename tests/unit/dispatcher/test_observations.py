"""What an observation is to a scorer, and what its doubts mean to people."""

from __future__ import annotations

import json
import pickle
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from dispatcher import Doubt, ExecutorClientConfig, Figures, RawObservation

MOMENT = datetime(2030, 1, 31, 12, tzinfo=UTC)
PAGE = Path(__file__).parents[3] / "docs" / "recommender.md"


def observed(**changes: Any) -> RawObservation:
    return RawObservation.model_validate({"execution_id": "f1", "timestamp": MOMENT} | changes)


def test_a_record_is_one_flat_row_of_json_values() -> None:
    observation = observed(
        status_code=503,
        latency_ms=2.5,
        error_rate=0.5,
        error_count=5,
        success_count=5,
        started_at=MOMENT,
        doubts=(Doubt.LATE,),
        logs=["a line"],
        trace_data={"resourceSpans": []},
        baseline=Figures(error_rate=0.1),
    )
    record = observation.to_record()
    assert json.loads(json.dumps(record)) == record
    expected = {
        "execution_id": "f1",
        "timestamp": "2030-01-31T12:00:00Z",
        "status_code": 503,
        "latency_ms": 2.5,
        "error_rate": 0.5,
        "error_count": 5,
        "success_count": 5,
        "started_at": "2030-01-31T12:00:00Z",
        "doubts": ["late"],
        "logs": ["a line"],
        "trace_data": {"resourceSpans": []},
        "baseline_error_rate": 0.1,
        "baseline_requests": None,
        "recovery_error_rate": None,
    }
    assert record.items() >= expected.items()


@pytest.mark.parametrize("field", ["timestamp", "started_at", "ended_at"])
@pytest.mark.parametrize("text", ["2020", "1.9e9", "-1"])
def test_a_number_as_text_is_refused_as_a_moment(field: str, text: str) -> None:
    with pytest.raises(ValidationError, match="RFC 3339"):
        observed(**{field: text})


def test_a_record_always_has_the_same_keys() -> None:
    full = observed(baseline=Figures(requests=1), recovery=Figures(requests=1), requests=1)
    assert list(observed().to_record()) == list(full.to_record())
    fields = (set(RawObservation.model_fields) - {"baseline", "recovery"}) | {
        f"{phase}_{name}" for phase in ("baseline", "recovery") for name in Figures.model_fields
    }
    assert set(full.to_record()) == fields


def test_lines_of_any_level_are_not_error_logs() -> None:
    assert not any("error_logs" in key for key in observed(logs=["all is well"]).to_record())


def test_what_was_not_seen_is_none() -> None:
    record = observed().to_record()
    seen = {key for key, value in record.items() if value is not None}
    assert seen == {"execution_id", "timestamp", "doubts", "logs", "truncated"}
    assert [record[key] for key in ("doubts", "logs", "truncated")] == [[], [], []]


@pytest.mark.parametrize("status", [0, 99, 600, 999])
def test_a_status_is_one_of_http_or_none(status: int) -> None:
    with pytest.raises(ValidationError):
        observed(status_code=status)


def test_a_doubt_is_its_name_in_json_settings_and_other_processes() -> None:
    assert TypeAdapter(tuple[Doubt, ...]).validate_json('["late"]') == (Doubt.LATE,)
    assert pickle.loads(pickle.dumps(Doubt.LATE)) is Doubt.LATE
    assert list(ExecutorClientConfig.model_validate({"on_doubt": {"late": "fail"}}).on_doubt) == [Doubt.LATE]
    assert f"{Doubt.FEW_REQUESTS}" == "few_requests"


def test_every_doubt_has_a_meaning_of_its_own_and_a_row_on_the_page_for_recommenders() -> None:
    assert len({doubt.meaning for doubt in Doubt}) == len(Doubt)
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", PAGE.read_text("utf-8"), re.MULTILINE))
    assert {doubt: rows.get(doubt) for doubt in Doubt} == {doubt: doubt.meaning for doubt in Doubt}
