"""The source of each setting: a variable, a line of the file, or neither."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from dispatcher.settings.files import config_file
from dispatcher.settings.validation import details_of, in_own_words
from dispatcher.settings.variables import KnownVariables, names_below, nearest, variables

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic import ValidationError
    from pydantic_settings import BaseSettings

__all__ = ["Source", "Sources"]


class Source(NamedTuple):
    """The source of a value: the default, unless a variable or a file sets it."""

    variable: str | None = None
    file: str | None = None
    line: int | None = None

    @property
    def kind(self) -> str:
        """`variable`, `file` or `default`."""
        if self.variable is not None:
            return "variable"
        return "default" if self.file is None else "file"

    def __str__(self) -> str:
        if self.line is not None:
            return f"{self.file}, line {self.line}"
        return self.variable or self.file or "default"


DEFAULT = Source()


class Sources:
    """What the environment and the file set now."""

    def __init__(self, settings: type[BaseSettings]) -> None:
        """Raises `InvalidSettingsError` if either cannot be read."""
        self._settings = settings
        self._variables = variables()
        self._from_variables = KnownVariables(settings)()
        self._file = config_file()
        self._from_file = {} if self._file is None else self._file.values
        self._lines = {} if self._file is None else self._file.lines()

    def of(self, path: Sequence[str]) -> Source:
        """The source of the value at `path`: `("worker", "threads")`."""
        setting = [name for name, sets in self._variables.items() if sets == tuple(path[: len(sets)])]
        if setting and _has(self._from_variables, path):
            return Source(variable=max(setting, key=lambda name: len(self._variables[name])))
        if self._file is not None and _has(self._from_file, path):
            sections = (tuple(path[:length]) for length in range(len(path), 0, -1))
            line = next(self._lines[section] for section in sections if section in self._lines)
            return Source(file=str(self._file.path), line=line)
        return DEFAULT

    def problems_of(self, error: ValidationError) -> list[list[str]]:
        """`[field, problem]` for each thing that is wrong, with the value's source and without the value."""
        return [self._problem(detail) for detail in details_of(error)]

    def _problem(self, detail: Mapping[str, Any]) -> list[str]:
        path = self._path_in_a_file([str(part) for part in detail["loc"]])
        problem = in_own_words(detail)
        if detail["type"] == "extra_forbidden":
            near = nearest(path[-1], names_below(self._settings, path[:-1]))
            problem += "" if near is None else f"; did you mean {near}?"
        source = self.of(path)
        return [".".join(path) or "(whole)", problem if source is DEFAULT else f"{problem} ({source})"]

    def _path_in_a_file(self, location: Sequence[str]) -> list[str]:
        """Pydantic's location, without the kind of a section that it names before the section's field."""
        path: list[str] = []
        inside: list[Any] = [self._from_variables, self._from_file]
        for name in location:
            sections = [each for each in inside if isinstance(each, dict)]
            found = [section[name] for section in sections if name in section]
            if found or name not in {section.get("kind") for section in sections}:
                path.append(name)
                inside = found
        return path


def _has(values: Mapping[str, Any], path: Sequence[str]) -> bool:
    """Whether there is a value at `path`, or one in the place of the section that has it."""
    inside: Any = values
    for name in path:
        if not isinstance(inside, dict):
            return True
        if name not in inside:
            return False
        inside = inside[name]
    return True
