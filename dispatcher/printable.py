"""Text from outside, made fit for a terminal and a log: it steers neither, and forges no line."""

from __future__ import annotations

import json
import logging
import textwrap
import unicodedata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["OneLine", "printable", "printable_json"]

LINE_SEPARATORS = {"Zl", "Zp"}
"""Their categories in Unicode. Those of control characters, formats and half characters begin with C."""


def printable(text: str, *, keep: str = "") -> str:
    """The text in one line. A character that could steer a terminal becomes its escape, as in `\\\\x1b`.

    The characters in `keep` stay as they are. What is not text is shown as Python shows it: a reason that a
    person gives must not keep anything from being stopped.
    """
    return _escaped(str(text), keep, lambda each: each.encode("unicode_escape").decode("ascii"))


def printable_json(text: str) -> str:
    """The same for a line of JSON, which means what it meant before."""
    return _escaped(text, "", lambda each: json.dumps(each)[1:-1])


def _escaped(text: str, keep: str, escape: Callable[[str], str]) -> str:
    if text.isprintable():
        return text
    return "".join(each if each in keep or _is_harmless(each) else escape(each) for each in text)


def _is_harmless(character: str) -> bool:
    category = unicodedata.category(character)
    return not category.startswith("C") and category not in LINE_SEPARATORS


class OneLine(logging.Formatter):
    """Writes each message in one line. The lines of a traceback are indented."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (the base class's name)
        """See `logging.Formatter`."""
        record.message = printable(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802 (the base class's name)
        """See `logging.Formatter`."""
        return textwrap.indent(printable(super().formatException(ei), keep="\n"), "  ")
