"""Rows as an Arrow table, and as a data frame. The extra `data` installs the libraries for it."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

from dispatcher.errors import ExtraMissingError, InvalidSettingsError
from dispatcher.export.columns import Kind, columns

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dispatcher.export.rows import Row

__all__ = ["Library", "arrow_table", "data_frame", "library"]

Library = Literal["polars", "pandas"]
LIBRARIES: tuple[Library, ...] = ("polars", "pandas")


def library(name: str) -> Any:
    """The module of a library that an extra installs. Raises `ExtraMissingError`."""
    try:
        return import_module(name)
    except ImportError as exc:
        message = f"{name} is not installed: pip install 'fault-dispatcher[data]'"
        if name == "pandas":
            message = f"{name} is not installed: pip install 'fault-dispatcher[data]' pandas"
        raise ExtraMissingError(message) from exc


def data_frame(rows: Sequence[Row], kind: Library | None, *, traces: bool) -> Any:
    """The rows as a data frame of the library, or of the one that is installed, polars if both are.

    Raises `ExtraMissingError`, `InvalidSettingsError` (no such library).
    """
    if kind is not None and kind not in LIBRARIES:
        problem = f"must be one of {', '.join(LIBRARIES)}"
        raise InvalidSettingsError(f"invalid argument: library {problem}", [["library", problem]])
    installed = (each for each in LIBRARIES if find_spec(each) is not None)
    chosen: str = kind or next(installed, "polars")
    module, table = library(chosen), arrow_table(rows, traces=traces)
    return table.to_pandas() if chosen == "pandas" else module.from_arrow(table)


def arrow_table(rows: Sequence[Row], *, traces: bool) -> Any:
    """The rows as a `pyarrow.Table`; its fields have meaning and unit. Raises `ExtraMissingError`."""
    pyarrow = library("pyarrow")
    return pyarrow.Table.from_pylist(rows, schema=_schema(pyarrow, traces=traces))


def _schema(pyarrow: Any, *, traces: bool) -> Any:
    types = {
        Kind.TEXT: pyarrow.string(),
        Kind.WHOLE: pyarrow.int64(),
        Kind.NUMBER: pyarrow.float64(),
        Kind.TIME: pyarrow.timestamp("us", tz="UTC"),
        Kind.TEXTS: pyarrow.list_(pyarrow.string()),
    }
    return pyarrow.schema(
        [
            pyarrow.field(each.name, types[each.kind], metadata={"meaning": each.meaning, "unit": each.unit})
            for each in columns(traces=traces)
        ]
    )
