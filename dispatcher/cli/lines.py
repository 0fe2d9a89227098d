"""Lines of text that commands print. Text from outside cannot control a terminal."""

from __future__ import annotations

import typer

from dispatcher.printable import printable

__all__ = ["echo"]


def echo(line: str, *, error: bool = False) -> None:
    """Print one line as it is, even if the terminal is narrower."""
    typer.echo(printable(line), err=error)
