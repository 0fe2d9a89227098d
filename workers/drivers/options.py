"""The options of a driver: `[executors.<name>.driver_options]`."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from dispatcher.errors import InvalidSettingsError
from dispatcher.settings.validation import problems_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dispatcher.settings.executors import ExecutorClientConfig

__all__ = ["DriverOptions", "read_options"]

SECTION = "driver_options"


class DriverOptions(BaseModel):
    """The options of a driver that has none. Drivers with options derive from it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


T = TypeVar("T", bound=DriverOptions)


def read_options(config: ExecutorClientConfig, kind: type[T]) -> T:
    """The configuration's `driver_options` as the driver knows them.

    Raises `InvalidSettingsError`, which names each option that is unknown or has a wrong value.
    """
    known = sorted(kind.model_fields)
    unknown = [name for name in config.driver_options if name not in known]
    problems = [[f"{SECTION}.{name}", _unknown(name, config.driver, known)] for name in unknown]
    options = {name: value for name, value in config.driver_options.items() if name in known}
    try:
        read = kind.model_validate(options)
    except ValidationError as exc:
        wrong = [(f"{SECTION}.{field}", text) for field, text in problems_of(exc)]
        problems += [[field.removesuffix(".(whole)"), text] for field, text in wrong]
    if problems:
        raise InvalidSettingsError("; ".join(" ".join(each) for each in problems), problems)
    return read


def _unknown(name: str, driver: str, known: Sequence[str]) -> str:
    near = get_close_matches(name, known, n=1)
    if near:
        return f"is not an option of the driver {driver}; did you mean {near[0]}?"
    return f"is not an option of the driver {driver}, which knows {', '.join(known) or 'none'}"
