"""Whether a fault was in force while its target was not reserved for it."""

from __future__ import annotations

from itertools import groupby, pairwise
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

SLACK_S = 0.25


class Force(NamedTuple):
    """What a data plane says of a fault. Times are in seconds since 1970."""

    apply_id: str
    service: str
    api: str
    applied: float
    began: float | None
    """When it was in force first. None if it never was."""

    ended: float | None
    """When it was gone. None if it is in force."""

    @property
    def target(self) -> tuple[str, str]:
        """What it hits."""
        return self.service, self.api

    @property
    def until(self) -> float:
        """Until when it was in force, if it ever was."""
        if self.began is None:
            return 0.0
        return float("inf") if self.ended is None else self.ended


def unreserved(forces: Iterable[Force], released: Mapping[str, float]) -> list[str]:
    """A sentence for each fault that was in force outside of its reservation.

    `released` says until when each fault's plan kept the target, by the fault's `apply_id`. A later apply to
    the same target shows that it was free by then.
    """
    ranked = sorted(forces, key=attrgetter("target", "applied"))
    found = [
        f"{one.apply_id} was in force {late_s:.1f} s after its plan released the target"
        for one in ranked
        if (late_s := one.until - released.get(one.apply_id, float("inf"))) > SLACK_S
    ]
    for _, on_one_target in groupby(ranked, key=attrgetter("target")):
        for one, following in pairwise(on_one_target):
            if one.until > following.applied:
                late_s = one.until - following.applied
                found.append(
                    f"{one.apply_id} was in force {late_s:.1f} s after {following.apply_id} was applied"
                )
    return found
