"""Names in queries cannot break out of their strings."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.observers.promql import escaped, escaped_for_a_pattern, filled

printable = st.text(st.characters(min_codepoint=0, max_codepoint=126))


def read(text: str) -> str:
    """What Go's `strconv.Unquote` makes of the inside of a string in double quotes."""
    return re.sub(r"\\x([0-9a-f]{2})", lambda found: chr(int(found[1], 16)), text)


@given(printable)
def test_a_name_in_a_string_is_read_as_itself(name: str) -> None:
    inside = escaped(name)
    assert not set(inside) & set("\"'`\n\r\0")
    assert read(inside) == name


@given(printable, printable)
def test_a_name_in_a_pattern_matches_only_itself(name: str, other: str) -> None:
    pattern = re.compile(read(escaped_for_a_pattern(name)), re.DOTALL)
    assert pattern.fullmatch(name)
    assert bool(pattern.fullmatch(other)) == (name == other)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ('a{s="{service}"}[{seconds}s]', 'a{s="shop"}[7s]'),
        ('a{p=~"{api_regex}"}', r'a{p=~"/v1\x5c.0/\x5c{seconds\x5c}\x22"}'),
        ('a{p="{api}"}', r'a{p="/v1.0/{seconds}\x22"}'),
        ("{other}", "{other}"),
    ],
    ids=["service and seconds", "a pattern", "a placeholder in a name", "no placeholder"],
)
def test_placeholders_are_filled_in_once(query: str, expected: str) -> None:
    assert filled(query, "shop", '/v1.0/{seconds}"', 7) == expected
