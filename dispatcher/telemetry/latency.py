"""How long calls took, as counts that a whole fleet can add up.

A latency falls into one of a row of buckets whose bounds grow by a constant factor. The middle of a bucket is
within `ACCURACY` of everything in it, be that microseconds or minutes. Two histograms are merged by adding
their buckets (C. Masson, J. E. Rim, H. K. Lee: DDSketch, VLDB 2019, section 2).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["ACCURACY", "FLOOR_US", "Latencies", "bucket_of", "fields_of"]

ACCURACY = 0.01
"""How far a latency that is read may be from the true one, as a share of it."""

FLOOR_US = 10.0
"""In microseconds: all that is quicker is in the first bucket, because no reader needs to know by how
much."""

GROWTH = (1 + ACCURACY) / (1 - ACCURACY)
TOTAL = "latency_us"
BUCKET = "latency:"


def fields_of(took_s: float) -> dict[str, int]:
    """What one latency adds to the fields that `Latencies.of` reads."""
    took_us = took_s * 1e6
    return {TOTAL: round(took_us), f"{BUCKET}{bucket_of(took_us)}": 1}


def bucket_of(took_us: float) -> int:
    """The bucket that a latency falls into."""
    return math.ceil(math.log(took_us / FLOOR_US, GROWTH)) if took_us > FLOOR_US else 0


@dataclass(frozen=True, slots=True)
class Latencies:
    """Many latencies together."""

    total_us: int = 0
    """Their sum, which is exact except for the rounding of each."""

    buckets: Mapping[int, int] = field(default_factory=dict)
    """How many fell into each bucket. Bucket n ends at `FLOOR_US` * `GROWTH` ** n."""

    @classmethod
    def of(cls, fields: Mapping[str, str | int]) -> Self:
        """From fields to which those of `fields_of` were added. Others are passed over."""
        found = {
            int(name.removeprefix(BUCKET)): int(count)
            for name, count in fields.items()
            if name.startswith(BUCKET)
        }
        return cls(int(fields.get(TOTAL, 0)), dict(sorted(found.items())))

    @property
    def count(self) -> int:
        """How many there are."""
        return sum(self.buckets.values())

    @property
    def mean_ms(self) -> float:
        """0 if there are none."""
        return self.total_us / self.count / 1000 if self.buckets else 0.0

    def quantile_ms(self, share: float) -> float:
        """What a `share` of them does not exceed, as `numpy.percentile` has it. 0 if there are none.

        Between two neighbours it is interpolated linearly; each is within `ACCURACY`, and so is the result.
        """
        if not self.buckets:
            return 0.0
        rank = share * (self.count - 1)
        ranks = list(accumulate(self.buckets.values()))
        lower, upper = (_middle_us(self._bucket(ranks, each)) for each in (math.floor(rank), math.ceil(rank)))
        return (lower + (upper - lower) * (rank - math.floor(rank))) / 1000

    def at_most(self, bounds_s: Sequence[float]) -> list[int]:
        """For each of the bounds, in seconds, how many do not exceed it."""
        return [
            sum(count for bucket, count in self.buckets.items() if _middle_us(bucket) <= bound_s * 1e6)
            for bound_s in bounds_s
        ]

    def _bucket(self, ranks: Sequence[int], rank: int) -> int:
        """The bucket of the latency with so many before it. `ranks` says how many each bucket ends with."""
        return list(self.buckets)[bisect_right(ranks, rank)]


def _middle_us(bucket: int) -> float:
    """As far from the bucket's lower bound as from its upper one, each taken relative to itself."""
    return FLOOR_US * GROWTH**bucket * 2 / (1 + GROWTH)
