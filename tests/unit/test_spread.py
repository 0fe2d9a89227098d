"""Tests that last long begin first in each of the processes that share the tests."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from support.spread import spread


@given(st.integers(0, 12), st.integers(0, 200), st.integers(1, 8))
def test_each_test_runs_once_and_each_process_begins_with_its_share(
    lasting: int, others: int, processes: int
) -> None:
    first = [f"lasts long {number}" for number in range(lasting)]
    order = spread(first, [f"short {number}" for number in range(others)], processes)
    assert sorted(order) == sorted([*first, *(f"short {number}" for number in range(others))])
    if others < lasting * processes:
        return  # a process may have only tests that last long
    for number, (begin, end) in enumerate(pairwise(shares(len(order), processes))):
        begins_with = [each for each in order[begin:end] if each in first]
        assert begins_with == order[begin : begin + len(begins_with)] == first[number::processes]


def shares(tests: int, processes: int) -> list[int]:
    """The first test of each process, as pytest-xdist hands them out, and the number of all tests."""
    begins = [0]
    for left in range(processes, 0, -1):
        begins.append(begins[-1] + (tests - begins[-1]) // left)
    return begins


def test_the_order_of_the_others_stays() -> None:
    assert spread(["a", "b", "c"], [1, 2, 3, 4, 5], 2) == ["a", "c", 1, 2, "b", 3, 4, 5]
