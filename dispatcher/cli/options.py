"""Options and arguments that several commands take."""

from __future__ import annotations

from typing import Annotated

import typer

from dispatcher.errors import ExecutorClientError
from dispatcher.settings.settings import load_settings

__all__ = ["Executor", "Ids", "executor_names"]


def executor_names(incomplete: str) -> list[str]:
    """The configured Executors that begin like this, for a shell that completes a word. Never raises."""
    try:
        names = load_settings().executors
    except (ExecutorClientError, OSError):  # who presses the tab key wants no error in the middle of the line
        return []
    return sorted(name for name in names if name.startswith(incomplete))


Executor = Annotated[
    str, typer.Option(help="Which of the configured Executors.", autocompletion=executor_names)
]
Ids = Annotated[list[str], typer.Argument(metavar="ID", help="Ids of plans, as submit prints them.")]
