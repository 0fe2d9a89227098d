"""Rows as files: CSV, JSON Lines, Parquet. Written page by page: memory does not grow with the file."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime
from enum import StrEnum
from typing import IO, TYPE_CHECKING, Any, Protocol, cast

from dispatcher.export.columns import Column, columns
from dispatcher.export.frames import arrow_table, library
from dispatcher.printable import printable, printable_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dispatcher.export.rows import Row

__all__ = ["Format", "Writer", "writer"]


class Format(StrEnum):
    """What a file is."""

    CSV = "csv"
    """For spreadsheets. Null is an empty cell, a list is joined with `;`, log lines are a JSON list."""

    JSONL = "jsonl"
    """One JSON object a line, with all columns. Null is null."""

    PARQUET = "parquet"
    """Typed columns. Needs the extra `data`."""


class Writer(Protocol):
    """Writes rows to a stream."""

    def write(self, rows: Sequence[Row]) -> None:
        """Write some rows."""

    def close(self) -> None:
        """Write the end of the file. The stream stays open."""


def writer(kind: Format, stream: IO[bytes], *, traces: bool) -> Writer:
    """A writer of this format. Raises `ExtraMissingError`."""
    if kind is Format.PARQUET:
        return _Parquet(stream, traces=traces)
    return (
        _Lines(stream, columns(traces=traces))
        if kind is Format.JSONL
        else _Csv(stream, columns(traces=traces))
    )


class _Csv:
    def __init__(self, stream: IO[bytes], of: Sequence[Column]) -> None:
        self._stream = stream
        self._columns = of
        self._write([each.name for each in of])

    def write(self, rows: Sequence[Row]) -> None:
        for row in rows:
            self._write([_cell(each.name, row.get(each.name)) for each in self._columns])

    def close(self) -> None:
        self._stream.flush()

    def _write(self, cells: Sequence[str]) -> None:
        line = io.StringIO()
        csv.writer(line, lineterminator="\n").writerow(cells)
        self._stream.write(line.getvalue().encode())


class _Lines:
    def __init__(self, stream: IO[bytes], of: Sequence[Column]) -> None:
        self._stream = stream
        self._columns = of

    def write(self, rows: Sequence[Row]) -> None:
        for row in rows:
            fields = {each.name: _plain(row.get(each.name)) for each in self._columns}
            self._stream.write(f"{printable_json(json.dumps(fields, ensure_ascii=False))}\n".encode())

    def close(self) -> None:
        self._stream.flush()


class _Parquet:
    def __init__(self, stream: IO[bytes], *, traces: bool) -> None:
        self._traces = traces
        schema = arrow_table([], traces=traces).schema
        self._file: Any = library("pyarrow.parquet").ParquetWriter(stream, schema, compression="zstd")

    def write(self, rows: Sequence[Row]) -> None:
        self._file.write_table(arrow_table(rows, traces=self._traces))

    def close(self) -> None:
        self._file.close()


def _plain(value: object) -> object:
    """A value as JSON has it."""
    return _rfc3339(value) if isinstance(value, datetime) else value


def _cell(name: str, value: object) -> str:
    """A value as text in one line. Characters that could steer a terminal are escaped."""
    if value is None:
        return ""
    if isinstance(value, list):
        texts = cast("list[str]", value)
        return printable(json.dumps(texts, ensure_ascii=False) if name == "logs" else ";".join(texts))
    return printable(_rfc3339(value) if isinstance(value, datetime) else str(value))


def _rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
