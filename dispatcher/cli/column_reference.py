"""The reference of the columns of an export: `python -m dispatcher.cli.column_reference`."""

from __future__ import annotations

import sys

from dispatcher.export.columns import BULKY, COLUMNS, Column

__all__ = ["document"]

HEADER = """\
# Columns of an export

Made by `make docs` from [`dispatcher/export/columns.py`](../dispatcher/export/columns.py).
`dispatcher export` and `PlanBatch.to_dataframe` write a row for each plan, with all columns each time. What
was not seen is null, never 0.

Times are in UTC, by the clock of Redis, those of an observation by the clock of the Executor or observer.
In CSV, null is an empty cell, a list is joined with `;`, and `logs` is a JSON list. In JSON Lines, times are
texts as in RFC 3339.

| column | values | unit | meaning |
|---|---|---|---|
"""

BULKY_HEADER = """
With `--traces` (`traces=True`) also these. A value may have megabytes:

| column | values | unit | meaning |
|---|---|---|---|
"""


def document() -> str:
    """The Markdown text."""
    return HEADER + "".join(map(_row, COLUMNS)) + BULKY_HEADER + "".join(map(_row, BULKY))


def _row(column: Column) -> str:
    return f"| `{column.name}` | {column.kind} | {column.unit} | {column.meaning} |\n"


if __name__ == "__main__":
    sys.stdout.write(document())
