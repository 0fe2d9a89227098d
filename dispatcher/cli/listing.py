"""Commands that are listed with one sentence each. The module of a command is imported once it is needed."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from typing import Any, NamedTuple

import typer
from typer.core import TyperCommand
from typer.main import get_group

__all__ = ["LazyCommand", "Listed", "Loaded"]

Loaded = typer.Typer | Callable[..., Any]
"""A group of commands, or the function of one."""


class Listed(NamedTuple):
    """What the list of commands shows of one, and where it is."""

    home: str
    """Its module and its name there: `dispatcher.cli.up:up`."""

    summary: str
    """The first sentence of its help text."""


class LazyCommand(TyperCommand):
    """A command or a group of commands, in the place of which the real one runs."""

    def __init__(self, name: str, find: Callable[[], Listed | Loaded]) -> None:
        """`find` is called if the command is run, or listed."""
        super().__init__(name)
        self._title = name
        self._find = find

    def get_short_help_str(self, limit: int = 45) -> str:
        """One sentence, for the list of commands. `limit` is for commands that bring none."""
        found = self._find()
        return found.summary if isinstance(found, Listed) else self._loaded().get_short_help_str(limit)

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """The context of the real command, to which all that follows belongs."""
        return self._loaded().make_context(info_name, args, parent, **extra)

    def add_to(self, app: typer.Typer) -> None:
        """Make the real command one of the app's."""
        found = self._find()
        loaded: Loaded = pkgutil.resolve_name(found.home) if isinstance(found, Listed) else found
        if isinstance(loaded, typer.Typer):
            app.add_typer(loaded, name=self._title)
        else:
            app.command(self._title)(loaded)

    def _loaded(self) -> Any:
        app = typer.Typer(pretty_exceptions_enable=False, rich_markup_mode=None)
        self.add_to(app)
        [command] = get_group(app).commands.values()
        return command
