"""JSON that is refused, JSON that is not, and what the oddest of it costs."""

from __future__ import annotations

import contextlib
import json
import time
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.odd_json import ODD, READ

from workers.drivers.answers import MAX_CONTAINERS, MAX_NAMES, Answer, parse_json

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@given(JSON)
def test_what_is_json_is_read_as_python_reads_it(value: object) -> None:
    assert parse_json(json.dumps(value).encode()) == value


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"NaN", "expected value"),
        (b'{"a": -Infinity}', "invalid number"),
        (b"1e999", "too large"),
        (b'{"a": [-1e999, "Infinity"]}', "too large"),
        (b"1" * 400 + b".0", "too large"),
        (b'{"a": 1, "a": 2}', 'duplicate key "a"'),
        (b'[{"b": {"a": 1, "a": 1}}]', 'duplicate key "a"'),
        (b'"\\ud800"', "hex escape"),
        (b'{"\\udc00": 1}', "surrogate"),
        (b'"\xed\xa0\x80"', "invalid unicode"),
        (b'"\xff"', "invalid unicode"),
        (b'"a\nb"', "control character"),
        (b"", "EOF"),
        (b"{} {}", "trailing characters"),
        (b"[1,]", "trailing comma"),
        (b"01", "invalid number"),
        (b"1" * 4301, "out of range"),
        ('{"a": 1}'.encode("utf-16"), "expected value"),
        ('"\\ud800"'.encode("utf-16-le"), "control character"),
        (b"[" * 100_000, "recursion limit"),
        (b"[" * 202 + b"]" * 202, "recursion limit"),
        (b'{"a":' * 201 + b"1" + b"}" * 201, "recursion limit"),
        (b"[" + b"[]," * MAX_CONTAINERS + b"1]", "more than 250,000 lists and objects"),
        (b'{"a":0' + b',"a":0' * MAX_NAMES + b"}", "more than 350,000 names"),
    ],
)
def test_anything_else_is_refused_with_a_reason(text: bytes, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse_json(text)


@pytest.mark.parametrize(
    "text",
    [
        b"[" * 200 + b"]" * 200,
        b'["' + b"[" * 500 + b'\\"["]',
        b'["Infinity", 1.5]',
        b"1" * 4300,
        b"[1e308, 1e-999, -0.0]",
        b'"\\ud83d\\ude00"',
    ],
)
def test_what_only_looks_odd_is_read(text: bytes) -> None:
    assert parse_json(text) == json.loads(text)


def test_a_byte_order_mark_is_passed_over() -> None:
    assert parse_json(b'\xef\xbb\xbf{"a": 1}') == {"a": 1}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_text_of_5_mb_is_read_or_refused_and_holds_the_interpreter_for_less_than_a_second(
    name: str,
) -> None:
    text = ODD[name]()
    assert any(seconds_of_cpu(text, refused=name not in READ) < 1 for _ in range(3))


def seconds_of_cpu(text: bytes, *, refused: bool) -> float:
    """What it takes to read the text. No other thread runs meanwhile, because the reader is native code."""
    begun_s = time.thread_time()
    with pytest.raises(ValueError, match=r".+") if refused else contextlib.nullcontext():
        parse_json(text)
    return time.thread_time() - begun_s


@pytest.mark.parametrize(
    ("date", "sent_at"),
    [
        ("Sun, 06 Nov 1994 08:49:37 GMT", datetime(1994, 11, 6, 8, 49, 37, tzinfo=UTC)),
        ("Sun, 06 Nov 1994 08:49:37 -0000", None),
        ("", None),
        ("soon", None),
        ("Sun, 06 Nov 1994 08:49:37 +9999999999999", None),
        ("Sun, 06 Nov 99999999999999999999 08:49:37 GMT", None),
    ],
)
def test_an_answer_was_sent_when_its_header_says_if_a_clock_can_hold_that(
    date: str, sent_at: datetime | None
) -> None:
    assert Answer("GET /", 200, b"", date=date).sent_at == sent_at
