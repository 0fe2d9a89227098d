"""JSON that is refused, and JSON that is not."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.drivers.strict_json import loads

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@given(JSON)
def test_what_is_json_is_read_as_python_reads_it(value: object) -> None:
    assert loads(json.dumps(value).encode()) == value


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"NaN", "NaN is not a JSON number"),
        (b'{"a": -Infinity}', "-Infinity is not a JSON number"),
        (b"1e999", "1e999 is too large a number"),
        (b'{"a": 1, "a": 2}', "'a' is there twice"),
        (b'[{"b": {"a": 1, "a": 1}}]', "'a' is there twice"),
        (b'"\\ud800"', "half of a surrogate pair"),
        (b'{"\\udc00": 1}', "half of a surrogate pair"),
        (b'"\xff"', "decode"),
        (b"", "Expecting value"),
        (b"{} {}", "Extra data"),
        (b"1" * 5000, "digits"),
        ('{"a": 1}'.encode("utf-16"), "decode"),
        ('"\\ud800"'.encode("utf-16-le"), "Expecting value|control character"),
        (b"[" * 100_000, "nested more than 100 deep"),
        (b'{"a":' * 101 + b"1" + b"}" * 101, "nested more than 100 deep"),
    ],
)
def test_what_is_none_is_refused_and_told_why(text: bytes, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        loads(text)


@pytest.mark.parametrize(
    "text", [b"[" * 100 + b"]" * 100, b"[" + b'["[[["],' * 500 + b"1]", b'["' + b"[" * 500 + b'\\"["]']
)
def test_brackets_in_text_or_side_by_side_are_not_deep(text: bytes) -> None:
    assert loads(text) == json.loads(text)


def test_both_halves_of_a_character_are_one() -> None:
    assert loads(b'"\\ud83d\\ude00"') == "\U0001f600"
