"""What commands print to people. Text from outside cannot control a terminal, and is not read as markup."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console

from dispatcher.printable import printable

if TYPE_CHECKING:
    from rich.text import Text

__all__ = ["stderr", "stdout"]


class _PlainConsole(Console):
    """Prints strings as they are, except characters that could steer the terminal."""

    def render_str(self, text: str, **options: Any) -> Text:
        """See `Console`, which calls it for every string that it prints, those in tables included."""
        return super().render_str(printable(text, keep="\n"), **options)


stdout = _PlainConsole(markup=False, emoji=False)
stderr = _PlainConsole(markup=False, emoji=False, stderr=True)
