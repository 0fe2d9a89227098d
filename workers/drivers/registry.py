"""Drivers by name: entry points in the group `fault_dispatcher.drivers`, to which others can add theirs."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import TYPE_CHECKING, cast

from dispatcher.errors import InvalidSettingsError

if TYPE_CHECKING:
    from collections.abc import Callable

    from dispatcher.settings.executors import ExecutorClientConfig
    from workers.drivers.base import Driver

__all__ = ["GROUP", "open_driver"]

GROUP = "fault_dispatcher.drivers"


def open_driver(executor: str, config: ExecutorClientConfig, connections: int) -> Driver:
    """The driver that the configuration names, for a process whose `connections` threads call at once.

    Raises `InvalidSettingsError` if no installed package has it, or it refuses its options.
    """
    section = f"executors.{executor}"
    found = entry_points(group=GROUP, name=config.driver)
    if not found:
        known = ", ".join(sorted(entry_points(group=GROUP).names))
        problem = f"must be an installed driver, not {config.driver!r}: {known}"
        raise InvalidSettingsError(problem, [["driver", problem]]).within(section)
    make = cast("Callable[[ExecutorClientConfig, int], Driver]", next(iter(found)).load())
    try:
        return make(config, connections)
    except InvalidSettingsError as exc:
        raise exc.within(section) from exc
