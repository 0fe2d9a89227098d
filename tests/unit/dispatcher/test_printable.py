"""Text that could steer a terminal, or forge a line of a log."""

from __future__ import annotations

import io
import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.cli.terminal import _PlainConsole
from dispatcher.printable import OneLine, printable, printable_json

EVIL = "no\x1b[2J\x1b]0;title\x07 \x9b31m\u202e pod\r\n2026-01-01 ERROR forged\u2028\x85\x00"
HARMLESS = "no\\x1b[2J\\x1b]0;title\\x07 \\x9b31m\\u202e pod\\r\\n2026-01-01 ERROR forged\\u2028\\x85\\x00"


def test_what_could_steer_a_terminal_or_forge_a_line_is_escaped() -> None:
    assert printable(EVIL) == HARMLESS


@pytest.mark.parametrize("text", ["", "no pod", "没有　Pod", "größer als 5 µs", 'a "quoted" \\path'])
def test_other_text_stays_as_it_is(text: str) -> None:
    assert printable(text) == printable_json(text) == text


def test_line_breaks_of_our_own_may_stay() -> None:
    assert printable("a\nb\x1b", keep="\n") == "a\nb\\x1b"


@given(st.text(st.characters(exclude_categories=())))
def test_no_text_has_more_than_one_line_afterwards(text: str) -> None:
    assert len(printable(text).splitlines()) <= 1


@given(st.text())
def test_json_means_what_it_meant_before(text: str) -> None:
    line = printable_json(json.dumps({text: [text]}, ensure_ascii=False))
    assert json.loads(line) == {text: [text]}
    assert len(line.splitlines()) == 1
    assert not set(line) & {"\x1b", "\x9b", "\u202e"}


def test_a_log_line_and_its_traceback_are_escaped() -> None:
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(OneLine("%(levelname)s %(message)s"))
    logger = logging.Logger("any")  # noqa: LOG001 (one of the test's own)
    logger.addHandler(handler)
    logger.error("it said %s", EVIL, exc_info=ValueError(EVIL))
    first, *traceback = written.getvalue().splitlines()
    assert first == f"ERROR it said {HARMLESS}"
    assert all(line.startswith("  ") for line in traceback)
    assert not set(written.getvalue()) & {"\x1b", "\x07", "\x9b", "\u202e", "\r"}


def test_a_console_prints_text_from_outside_as_text() -> None:
    written = io.StringIO()
    console = _PlainConsole(file=written, markup=False, emoji=False, width=200)
    console.print(f"[bold]a[/bold] :smile: {EVIL}")
    assert written.getvalue().startswith("[bold]a[/bold] :smile: no\\x1b[2J")
    assert "\x1b" not in written.getvalue()
