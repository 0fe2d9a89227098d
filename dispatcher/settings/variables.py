"""The environment variables of the settings: those that name none are passed over, with a warning.

Other programs set variables that begin with `DISPATCHER_`, too. Kubernetes does for a service of that name:
`DISPATCHER_SERVICE_HOST`, `DISPATCHER_PORT_80_TCP_ADDR` and others, which are passed over in silence.
"""

from __future__ import annotations

import difflib
import logging
import os
import re
from typing import TYPE_CHECKING, Any, NamedTuple, get_args, get_origin

from pydantic import BaseModel
from pydantic_settings import EnvSettingsSource, SettingsError

from dispatcher.settings.validation import invalid_settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["PREFIX", "KnownVariables", "names_below", "nearest", "variables", "warn_of_unknown_variables"]

PREFIX = "DISPATCHER_"

DELIMITER = "__"
OF_A_SERVICE = re.compile(r"_SERVICE_(HOST|PORT(_\w+)?)$|_PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?$")

logger = logging.getLogger(__name__)
_warned: set[str] = set()


class Unknown(NamedTuple):
    """A variable that is not a setting."""

    variable: str
    path: list[str]
    depth: int
    """Which part of the path is unknown, from 0."""

    names: list[str]
    """What could be in its place."""

    @property
    def nearest(self) -> str | None:
        """The variable that may be meant."""
        found = nearest(self.path[self.depth], self.names)
        if found is None:
            return None
        path = [*self.path[: self.depth], found, *self.path[self.depth + 1 :]]
        return self.variable[: -len(DELIMITER.join(self.path))] + DELIMITER.join(path).upper()


class KnownVariables(EnvSettingsSource):
    """Pydantic's source, without the parts of sections that are not settings."""

    def __call__(self) -> dict[str, Any]:
        """The values by field. Raises `InvalidSettingsError` for a section that is not JSON."""
        try:
            values = super().__call__()
        except (SettingsError, RecursionError):
            name = self._not_json()
        else:
            for each in _unknown(self.settings_cls):
                _remove(values, each.path[: each.depth + 1])
            return values
        problem = "must be JSON; or set a variable for each field, with __ between the names"
        raise invalid_settings([[name, problem]])  # not from an error that may show the value

    def _not_json(self) -> str:
        """The variable that is not JSON: the one that cannot be read even by itself."""
        for variable in variables():
            alone = EnvSettingsSource(self.settings_cls)
            alone.env_vars = {variable.lower(): os.environ[variable]}
            try:
                alone()
            except (SettingsError, RecursionError):
                return variable
        return "(whole)"


def warn_of_unknown_variables(settings: type[BaseModel]) -> None:
    """Warn of each variable that begins with `DISPATCHER_` and is not a setting, once in a process."""
    for each in _unknown(settings):
        if each.variable in _warned or OF_A_SERVICE.search(each.variable):
            continue
        _warned.add(each.variable)
        hint = "" if each.nearest is None else f"; did you mean {each.nearest}?"
        logger.warning("%s is not a setting, and has no effect%s", each.variable, hint)


def variables() -> dict[str, tuple[str, ...]]:
    """The variables that begin with `DISPATCHER_`, and what each one sets: `("worker", "threads")`."""
    names = [name for name in sorted(os.environ) if name.upper().startswith(PREFIX)]
    paths = {name: tuple(name[len(PREFIX) :].lower().split(DELIMITER)) for name in names}
    return {name: path for name, path in paths.items() if path != ("config",)}


def names_below(settings: type[BaseModel], path: Iterable[str]) -> list[str]:
    """The names of what can be set in the section at `path`."""
    inside: list[Any] = [settings]
    for name in path:
        inside = _below(inside, name)[1]
    return _below(inside, "")[0]


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The one of `names` that may be meant."""
    return next(iter(difflib.get_close_matches(name, list(names), n=1)), None)


def _unknown(settings: type[BaseModel]) -> Iterator[Unknown]:
    for variable, path in variables().items():
        inside: list[Any] = [settings]
        for depth, name in enumerate(path):
            names, found = _below(inside, name)
            if not found:
                yield Unknown(variable, list(path), depth, names)
                break
            inside = found


def _below(kinds: list[Any], name: str) -> tuple[list[str], list[Any]]:
    """The names that these types have, and the types of `name`; none if they have no such name."""
    names: list[str] = []
    found: list[Any] = []
    for kind in kinds:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            names += kind.model_fields
            if name in kind.model_fields:
                found += _members(kind.model_fields[name].annotation)
        elif get_origin(kind) is dict or kind is Any:
            found += _members(get_args(kind)[1]) if get_args(kind) else [Any]
    return names, found


def _members(annotation: Any) -> list[Any]:
    """The types in a union, or of what it annotates. Anything that is neither goes for `Any` below it."""
    origin = get_origin(annotation)
    if isinstance(annotation, type) or origin is dict:
        return [annotation]
    arguments = [each for each in get_args(annotation) if isinstance(each, type) or get_origin(each)]
    members = [member for each in arguments for member in _members(each)]
    return members or [Any]


def _remove(values: dict[str, Any], path: list[str]) -> None:
    """Take out what is at `path`, and each section that has nothing else."""
    section = values.get(path[0])
    if len(path) > 1 and isinstance(section, dict):
        _remove(section, path[1:])
    if len(path) == 1 or section == {}:
        values.pop(path[0], None)
