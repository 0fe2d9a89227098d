"""What is computed from the figures of an observation."""

from __future__ import annotations

import math

__all__ = ["wilson_interval"]

Z = 1.959964
"""Of the normal distribution, 95 % lies within this many standard deviations."""


def wilson_interval(errors: int, requests: int) -> tuple[float, float]:
    """The 95 % interval of an error rate of which `errors` of `requests` are a sample (E. B. Wilson, 1927).

    (0, 1) without any request.
    """
    if requests == 0:
        return 0.0, 1.0
    share, weight = errors / requests, Z * Z / requests
    middle = share + weight / 2
    reach = Z * math.sqrt(share * (1 - share) / requests + weight / (4 * requests))
    low, high = ((middle + sign * reach) / (1 + weight) for sign in (-1, 1))
    return min(max(low, 0.0), share), max(min(high, 1.0), share)
