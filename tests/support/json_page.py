"""What docs/json.md says of each command's JSON, and where a line that was printed differs from it."""

from __future__ import annotations

import functools
import re
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dispatcher.cli.json_lines import JSON_VERSION

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

PAGE = Path(__file__).parents[2] / "docs" / "json.md"
ROW = re.compile(r"^\| `([^`]+)` \| ([^|]+?) \|", re.MULTILINE)
OPEN = {"headers", "requests", "plans", "addresses", "environment", "trace_data", "baseline", "recovery"}
"""Objects whose own fields have no rows."""


def _is_time(value: object) -> bool:
    return isinstance(value, str) and datetime.fromisoformat(value).tzinfo is not None


IS: dict[str, Callable[[object], bool]] = {
    "text": lambda value: isinstance(value, str),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "true or false": lambda value: isinstance(value, bool),
    "time": _is_time,
    "list": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
    "any": lambda value: True,
}


@functools.cache
def sections() -> dict[str, dict[str, str]]:
    """The type of each field, by the name of the command or part."""
    found = {}
    for section in re.split(r"^### ", PAGE.read_text("utf-8"), flags=re.MULTILINE)[1:]:
        title, _, body = section.partition("\n")
        for name in re.findall(r"`([^`]+)`", title):
            found[name] = dict(ROW.findall(body))
    return found


def differences(command: str, line: Mapping[str, Any]) -> list[str]:
    """The differences between the line and the page's description of the command. Empty if they agree."""
    fields = dict(line)
    version = fields.pop("version", None)
    wrong = [] if version == JSON_VERSION else [f"version is {version}"]
    return wrong + list(_compare(command, sections()[command], fields))


def _compare(where: str, rows: Mapping[str, str], fields: Mapping[str, Any]) -> Iterator[str]:
    own = {name: kind for name, kind in rows.items() if "[]" not in name}
    yield from (f"{where}: {name} has no row" for name in fields if name not in own)
    for name, kind in own.items():
        value, base = fields.get(name), kind.removesuffix(", if any")
        if value is None:
            if base == kind:
                yield f"{where}: {name} is missing"
        elif not IS[base](value):
            yield f"{where}: {name} is {value!r}, which is no {base}"
        elif base == "object" and name not in OPEN:
            yield from _compare(f"{where}: {name}", sections()[name], value)
        elif base == "list":
            below = {
                row.partition("[].")[2]: kind for row, kind in rows.items() if row.startswith(f"{name}[].")
            }
            for each in value if below else []:
                yield from _compare(f"{where}: {name}", below, each)
