"""The order of tests that several processes share."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["spread"]

T = TypeVar("T")


def spread(first: Sequence[T], others: Sequence[T], processes: int) -> list[T]:
    """All of them, such that each process begins with its share of `first`.

    pytest-xdist hands each process as many tests that follow each other. A process that is done takes some of
    the last ones of another.
    """
    order: list[T] = []
    rest = list(others)
    for number in range(processes):
        share = (len(first) + len(others) - len(order)) // (processes - number)
        begin = first[number::processes]
        order += begin
        order += rest[: max(0, share - len(begin))]
        del rest[: max(0, share - len(begin))]
    return order
