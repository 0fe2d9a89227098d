"""What is known of installed packages: the version of this one, and the commands that others bring."""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING

from dispatcher.cli.listing import LazyCommand
from dispatcher.own_packages import import_own

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["commands", "version"]


def version() -> str:
    """The version of this package."""
    return metadata.version("fault-dispatcher")


def commands() -> Iterator[LazyCommand]:
    """The commands that are registered as entry points."""
    import_own("workers")  # and not a folder of PYTHONPATH that has this name
    import_own("conformance")
    for command in metadata.entry_points(group="fault_dispatcher.commands"):
        yield LazyCommand(command.name, command.load)
