"""A small worker with many plans: waiting takes no thread.

`python -m benchmarks.small_worker`. One worker with 2 threads carries out 500 plans of 5 s, each on a target
of its own. Exit code 1 if that takes 30 s or more, or if a plan has no observation.
"""

from __future__ import annotations

import sys
import time

from benchmarks.contenders.ours import Ours
from benchmarks.measurements import Scale, fleet

PLANS = 500
PLAN_S = 5
BOUND_S = 30.0


def main() -> None:
    """Measure, print, and exit with 1 if the bound is broken."""
    ours = Ours(1, "--concurrency", "2")
    with fleet(ours, PLANS, Scale(warm=20)) as (_, client):
        begun = time.monotonic()
        submitted = client.submit_many([ours.plan(number, PLAN_S) for number in range(PLANS)])
        observed = client.wait(submitted, BOUND_S)
        took_s = time.monotonic() - begun
    print(f"small_worker: plans={PLANS} observed={observed} seconds={took_s:.1f}")
    sys.exit(int(observed < PLANS or took_s >= BOUND_S))


if __name__ == "__main__":
    main()
