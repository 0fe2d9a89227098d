"""Exported tables: their columns, and that files and data frames have the same values."""

from __future__ import annotations

import csv
import io
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pyarrow import parquet
from support.plans import abort_plan

from dispatcher import (
    Doubt,
    ExecutorRejectedError,
    ExtraMissingError,
    FaultPlan,
    Figures,
    InvalidSettingsError,
    PlanState,
    PlanStatus,
    RawObservation,
)
from dispatcher.cli.column_reference import document
from dispatcher.export.columns import COLUMNS, columns
from dispatcher.export.files import Format, writer
from dispatcher.export.frames import arrow_table, data_frame
from dispatcher.export.rows import Ended, row_of

if TYPE_CHECKING:
    from dispatcher.export.rows import Row

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
MARKUP = "[bold]not markup[/bold] <b>, \x1b[31m"
SEEN = RawObservation(
    execution_id="f1",
    timestamp=NOON,
    requests=100,
    error_rate=0.25,
    doubts=(Doubt.LATE, Doubt.SHORT),
    baseline=Figures(latency_ms=1.5, started_at=NOON),
    logs=["one;two", "three\nfour"],
    trace_data={"spans": []},
)


def status(plan_id: str, state: PlanState, **changes: Any) -> PlanStatus:
    fields: dict[str, Any] = {"plan": abort_plan(), "executor": "default", "apply_id": None, "attempts": 0}
    fields |= dict.fromkeys(("cause", "applied_at", "ends_at", "next_step_at", "ended_at"))
    return PlanStatus(id=plan_id, state=state, submitted_at=NOON, **(fields | changes))


@pytest.fixture
def rows() -> list[Row]:
    error = ExecutorRejectedError(MARKUP, 400, "bad")
    return [
        row_of(Ended("p1", status("p1", PlanState.OBSERVED, batch="b1", tags=("a", "b=1")), SEEN)),
        row_of(Ended("p2", status("p2", PlanState.FAILED, cause=MARKUP), error)),
        row_of(Ended("p3", status("p3", PlanState.QUEUED), None)),
        row_of(Ended("p4", None, error)),
    ]


def written(kind: Format, rows: list[Row], *, traces: bool = False) -> bytes:
    stream = io.BytesIO()
    table = writer(kind, stream, traces=traces)
    table.write(rows[:1])
    table.write(rows[1:])
    table.close()
    return stream.getvalue()


def test_there_is_a_column_for_every_field_of_a_plan_and_of_an_observation() -> None:
    names = [column.name for column in columns(traces=True)]
    assert len(set(names)) == len(names)
    nested = {f"{prefix}_{name}" for prefix in ("baseline", "recovery") for name in Figures.model_fields}
    assert set(FaultPlan.model_fields) <= set(names)
    assert (set(RawObservation.model_fields) - {"baseline", "recovery"}) | nested <= set(names)


def test_every_value_of_a_row_has_a_column(rows: list[Row]) -> None:
    assert {name for row in rows for name in row} == {column.name for column in columns(traces=True)}


def test_the_page_of_columns_is_made_from_them() -> None:
    page = Path(__file__).parents[3] / "docs" / "columns.md"
    assert page.read_text("utf-8") == document(), "run `make docs`"


def test_json_lines_have_every_column_and_null_for_what_was_not_seen(rows: list[Row]) -> None:
    text = written(Format.JSONL, rows, traces=True).decode()
    seen, failed, queued, unknown = map(json.loads, text.splitlines())
    assert [list(row) for row in (seen, failed, queued, unknown)] == [
        [column.name for column in columns(traces=True)]
    ] * 4
    assert (seen["requests"], seen["error_rate"], seen["latency_ms"]) == (100, 0.25, None)
    assert (seen["doubts"], seen["tags"]) == (["late", "short"], ["a", "b=1"])
    assert (seen["timestamp"], seen["baseline_started_at"]) == ("2030-01-01T12:00:00Z",) * 2
    assert (seen["logs"], seen["trace_data"]) == (SEEN.logs, '{"spans": []}')
    assert (failed["error"], failed["error_message"]) == ("ExecutorRejectedError", MARKUP)
    assert (queued["state"], queued["error"], queued["error_rate"]) == ("queued", None, None)
    assert (unknown["id"], unknown["state"], unknown["error"]) == ("p4", None, "ExecutorRejectedError")


def test_csv_has_an_empty_cell_for_null_and_one_line_for_each_plan(rows: list[Row]) -> None:
    text = written(Format.CSV, rows, traces=True).decode()
    assert len(text.splitlines()) == 5
    assert text.replace("\n", "").isprintable()
    seen, failed, queued, _ = csv.DictReader(io.StringIO(text))
    assert (seen["tags"], seen["doubts"], seen["requests"]) == ("a;b=1", "late;short", "100")
    assert (seen["latency_ms"], seen["baseline_latency_ms"]) == ("", "1.5")
    assert json.loads(seen["logs"]) == SEEN.logs
    assert failed["error_message"] == MARKUP.replace("\x1b", "\\x1b")
    assert (queued["doubts"], queued["tags"]) == ("", "")


def test_logs_and_traces_are_left_out_unless_they_are_asked_for(rows: list[Row]) -> None:
    for kind in (Format.CSV, Format.JSONL):
        assert b"trace_data" not in written(kind, rows).replace(b"trace_data were", b"")


def test_an_empty_table_still_has_its_columns() -> None:
    assert written(Format.CSV, []).decode().count(",") == len(COLUMNS) - 1
    assert written(Format.JSONL, []) == b""
    assert parquet.read_table(io.BytesIO(written(Format.PARQUET, []))).num_columns == len(COLUMNS)


def test_parquet_has_the_same_rows_with_types_meanings_and_units(rows: list[Row]) -> None:
    table = parquet.read_table(io.BytesIO(written(Format.PARQUET, rows, traces=True)))
    lines = map(json.loads, written(Format.JSONL, rows, traces=True).decode().splitlines())
    for row, line in zip(table.to_pylist(), lines, strict=True):
        moments = {name: value for name, value in row.items() if isinstance(value, datetime)}
        shown = {name: value.isoformat().replace("+00:00", "Z") for name, value in moments.items()}
        assert row | shown == line
    field = table.schema.field("latency_ms")
    assert field.metadata == {b"meaning": b"mean latency", b"unit": b"ms"}


def test_data_frames_have_the_rows_of_the_arrow_table(rows: list[Row]) -> None:
    import pandas as pd  # noqa: PLC0415 (a second, which other tests need not wait)
    import polars as pl  # noqa: PLC0415 (the same)

    table = arrow_table(rows, traces=False)
    frame = data_frame(rows, None, traces=False)
    assert isinstance(frame, pl.DataFrame)
    assert frame.to_dicts() == table.to_pylist()
    assert frame["submitted_at"].dtype == pl.Datetime("us", "UTC")
    other = data_frame(rows, "pandas", traces=False)
    assert isinstance(other, pd.DataFrame)
    assert other["requests"].isna().tolist() == [False, True, True, True]
    assert other["id"].tolist() == ["p1", "p2", "p3", "p4"]


def test_a_library_that_is_missing_is_named_with_the_command_that_installs_it(
    rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ExtraMissingError, match=r"pip install 'fault-dispatcher\[data\]'") as caught:
        data_frame(rows, None, traces=False)
    assert isinstance(caught.value, ImportError)
    with pytest.raises(ExtraMissingError):
        written(Format.PARQUET, rows)
    assert written(Format.CSV, rows)
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ExtraMissingError, match="pandas is not installed"):
        data_frame(rows, "pandas", traces=False)


def test_an_unknown_library_is_refused(rows: list[Row]) -> None:
    with pytest.raises(InvalidSettingsError, match="polars, pandas"):
        data_frame(rows, "numpy", traces=False)  # type: ignore[arg-type]
