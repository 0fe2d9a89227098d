"""Plan files: YAML, JSON and JSON Lines, one plan or many in each."""

from __future__ import annotations

import glob
import json
import re
import sys
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dispatcher.errors import InvalidPlanError
from dispatcher.headers import headers_of_lines
from dispatcher.models import FaultPlan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

__all__ = ["FileEntry", "Problems", "read_entries", "read_plans", "refusal_of"]

STANDARD_INPUT = "-"
MOST_BYTES = 64 * 1024 * 1024
LIKE_JSON = re.compile(r"[\[{\s]*([\"}\]]|\Z)")
"""How JSON with a plan in it begins. YAML has no quotes there."""

BETWEEN_ITEMS = re.compile(r"[\s,]*")

Problems = list[tuple[str, str]]
"""Each wrong field and what is wrong with it. The field is empty if the whole file is meant."""


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A plan in a file, or what keeps it from being one."""

    file: str
    number: int | None = None
    """Which of the file's plans it is, from 1 on. None if the file as a whole cannot be read."""

    line: int | None = None
    """The line of the file at which it begins, from 1 on."""

    plan: FaultPlan | None = None
    problems: Sequence[tuple[str, str]] = ()

    @property
    def where(self) -> str:
        """The file and the plan, for people."""
        return self.file if self.number is None else f"{self.file}, plan {self.number}, line {self.line}"


class _Found(NamedTuple):
    """Plain data in a file."""

    line: int
    value: object


class _UnreadableError(ValueError):
    """A file that holds no plans. Its text says why, without the file's name."""


def read_plans(names: Iterable[str], headers: Iterable[str] = ()) -> list[FaultPlan]:
    """All plans in the named files; `-` is standard input, and `*`, `?` and `**` are part of names that they
    match.

    A `.yaml`, `.yml`, `.json`, `.jsonl` or `.ndjson` file is what its name says; the kind of anything else
    follows from how it begins. Each holds one plan, or a list or sequence of plans. Requests must have all
    `headers` as well, written as in `x-test-run: 42`. Raises
    `InvalidPlanError`, which names every wrong field of every plan, with file and line.
    """
    entries = list(read_entries(names, headers))
    refusal = refusal_of(entries)
    if refusal is not None:
        raise refusal
    return [entry.plan for entry in entries if entry.plan is not None]


def read_entries(names: Iterable[str], headers: Iterable[str] = ()) -> Iterator[FileEntry]:
    """Each plan in the named files, and each entry that is not a plan. See `read_plans`."""
    also = headers_of_lines(headers)
    for name in names:
        for file in _matching(name):
            yield from (_with_headers(entry, also) for entry in _read_file(file))


def _with_headers(entry: FileEntry, headers: Mapping[str, str] | None) -> FileEntry:
    if entry.plan is None or headers is None:
        return entry
    try:
        return replace(entry, plan=entry.plan.with_headers(headers))
    except InvalidPlanError as exc:
        return replace(entry, plan=None, problems=exc.problems)


def refusal_of(entries: Iterable[FileEntry]) -> InvalidPlanError | None:
    """The error that names every problem of the entries. None if there is no problem."""
    problems = [
        [f"{entry.where}: {field}" if field else entry.where, problem]
        for entry in entries
        for field, problem in entry.problems
    ]
    if not problems:
        return None
    return InvalidPlanError("invalid plans: " + "; ".join(" ".join(each) for each in problems), problems)


def _matching(name: str) -> list[str]:
    """The files that a name with wildcards matches. The name itself if there are none."""
    if not glob.has_magic(name) or Path(name).exists():
        return [name]
    matching = glob.glob(name, recursive=True)  # noqa: PTH207 (a Path's own takes no absolute pattern)
    return sorted(each for each in matching if Path(each).is_file()) or [name]


def _read_file(name: str) -> Iterator[FileEntry]:
    file = "standard input" if name == STANDARD_INPUT else name or "''"
    try:
        text = _text(name)
        found = _format(name, text)(text)
    except _UnreadableError as exc:
        yield FileEntry(file, problems=[("", str(exc))])
        return
    except (ValueError, RecursionError) as exc:
        yield FileEntry(file, problems=[("", f"cannot be read: {_in_a_line(exc)}")])
        return
    if not found:
        yield FileEntry(file, problems=[("", "holds no plan")])
    for number, (line, value) in enumerate(found, start=1):
        yield _checked(file, number, line, value)


def _checked(file: str, number: int, line: int, value: object) -> FileEntry:
    if not isinstance(value, dict):
        whole = [("(whole)", "must be a mapping of fields to values")]
        return FileEntry(file, number, line, problems=whole)
    try:
        return FileEntry(file, number, line, FaultPlan.model_validate(value))
    except InvalidPlanError as exc:
        return FileEntry(file, number, line, problems=exc.problems)


def _text(name: str) -> str:
    """Raises `_UnreadableError`."""
    if name != STANDARD_INPUT and glob.has_magic(name) and not Path(name).exists():
        raise _UnreadableError("matches no file")
    try:
        raw = _bytes(name)
    except (OSError, ValueError) as exc:  # ValueError: no file has such a name
        why = exc.strerror if isinstance(exc, OSError) else exc
        raise _UnreadableError(f"cannot be read: {why}") from exc
    if len(raw) > MOST_BYTES:
        raise _UnreadableError(f"is larger than {MOST_BYTES // 1024**2} MB: split it")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise _UnreadableError("cannot be read: it is not UTF-8 text") from exc


def _bytes(name: str) -> bytes:
    """What the file holds, or a little more than may be read of it."""
    if name == STANDARD_INPUT:
        if sys.stdin is None:  # Python's own mark of a closed stream
            raise ValueError("it is closed")
        return sys.stdin.buffer.read(MOST_BYTES + 1)
    if not name:
        raise ValueError("it has no name")
    with Path(name).open("rb") as file:
        return file.read(MOST_BYTES + 1)


def _in_a_line(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return " ".join(str(error).split())


def _format(name: str, text: str) -> Callable[[str], list[_Found]]:
    by_suffix: dict[str, Callable[[str], list[_Found]]] = {
        ".json": _json,
        ".jsonl": _json_lines,
        ".ndjson": _json_lines,
        ".yaml": _yaml,
        ".yml": _yaml,
    }
    return by_suffix.get(Path(name).suffix.lower()) or _format_by_content(text)


def _format_by_content(text: str) -> Callable[[str], list[_Found]]:
    if not text.lstrip().startswith(("{", "[")):
        return _yaml
    lines = [line for line in text.splitlines() if line.strip()]
    each_is_whole = all(line.startswith("{") and line.rstrip().endswith("}") for line in lines)
    if LIKE_JSON.match(text):
        return _json_lines if each_is_whole else _json
    return _yaml_lines if each_is_whole else _yaml


def _json(text: str) -> list[_Found]:
    whole = json.loads(text)
    begin = len(text) - len(text.lstrip())
    if not isinstance(whole, list):
        return [_Found(text.count("\n", 0, begin) + 1, json.loads(text, object_pairs_hook=_unique))]
    found, decoder, line, place = [], json.JSONDecoder(object_pairs_hook=_unique), 1, 0
    next_item = begin + 1
    for _ in whole:
        between = BETWEEN_ITEMS.match(text, next_item)
        begins = next_item if between is None else between.end()
        line, place = line + text.count("\n", place, begins), begins
        try:
            item, next_item = decoder.raw_decode(text, begins)
        except ValueError as exc:
            raise ValueError(f"{exc}, in the plan of line {line}") from exc
        found.append(_Found(line, item))
    return found


def _json_lines(text: str) -> list[_Found]:
    return _by_lines(text, lambda line: json.loads(line, object_pairs_hook=_unique))


def _yaml_lines(text: str) -> list[_Found]:
    """A plan in YAML's flow style on each line."""
    return _by_lines(text, lambda line: next(found.value for found in _yaml(line)))


def _by_lines(text: str, parse: Callable[[str], object]) -> list[_Found]:
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            try:
                found.append(_Found(number, parse(line)))
            except ValueError as exc:
                words = re.sub(r"^line 1: |,? line 1\b(?= column|$)", "", _in_a_line(exc))
                raise ValueError(f"line {number}: {words}") from exc
    return found


def _yaml(text: str) -> list[_Found]:
    from dispatcher.cli.yaml_files import documents_of  # noqa: PLC0415 (other files need no YAML)

    return [_Found(*each) for each in documents_of(text)]


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        [(twice, _)] = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"{twice!r} is given twice")
    return fields
