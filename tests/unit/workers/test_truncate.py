"""What an observation keeps of traces and logs that are too long."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from workers.drivers.truncate import truncate_json, truncate_lines

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=5),
    max_leaves=30,
)


def size(value: object) -> int:
    """What it takes where results are kept: as JSON in UTF-8."""
    return len(json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode())


@given(JSON, st.integers(min_value=4, max_value=300))
def test_what_is_kept_fits_and_whole_values_are_left_alone(value: Any, max_bytes: int) -> None:
    kept, truncated = truncate_json(value, max_bytes)
    assert size(kept) <= max_bytes
    assert truncated == (size(value) > max_bytes)
    if not truncated:
        assert kept == value


def test_the_first_spans_are_kept_in_their_place() -> None:
    spans = [{"spanId": f"{number:016x}"} for number in range(100)]
    trace: Any = {"resourceSpans": [{"resource": {"a": 1}, "scopeSpans": [{"spans": spans}]}]}
    kept: Any
    kept, truncated = truncate_json(trace, 1_000)
    assert truncated
    left = kept["resourceSpans"][0]["scopeSpans"][0]["spans"]
    assert left == spans[: len(left)]
    assert len(left) == 31  # 61 bytes around them, 30 for each, and commas


@given(JSON, st.integers(min_value=4, max_value=300))
def test_nothing_is_lost_but_items_of_lists(value: Any, max_bytes: int) -> None:
    def assert_part_of(kept: Any, whole: Any) -> None:
        if isinstance(kept, dict):
            assert list(kept) == list(whole)
            for name, member in kept.items():
                assert_part_of(member, whole[name])
        elif isinstance(kept, list):
            for mine, other in zip(kept, whole, strict=False):
                assert_part_of(mine, other)
        else:
            assert kept == whole

    kept, _ = truncate_json(value, max_bytes)
    if kept is not None:
        assert_part_of(kept, value)


@given(st.lists(st.text()), st.integers(min_value=0, max_value=200))
def test_the_first_lines_are_kept(lines: list[str], max_bytes: int) -> None:
    kept, truncated = truncate_lines(lines, max_bytes)
    assert kept == lines[: len(kept)]
    assert truncated == (len(kept) < len(lines))
    assert not kept or size(kept) <= max_bytes + len("[]")
