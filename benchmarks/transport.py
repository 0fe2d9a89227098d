"""What a call to an Executor costs this process, compared with plain `requests.Session.get`.

`python -m benchmarks.transport`. CPU time, not wall time: blocks of calls in turns, the same answers from the
same server. Both sides are requests. Ours sends copies of a prepared request and reads no environment, which
saves about half. Its bounds of time and size, its span and its strict JSON take some of that again.
Exit code 0 if ours takes at most 0.7 of what the session takes.
"""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

import requests

from benchmarks.stage.program import Bound, conclude, run
from benchmarks.stage.stage import stage
from dispatcher import ExecutorClientConfig
from workers.drivers.transport import HttpTransport

if TYPE_CHECKING:
    from collections.abc import Callable

BLOCKS = 20
CALLS = 100
BOUND = 0.7


def main() -> None:
    """Measure, print, and exit with 1 if the bound is broken."""
    with stage() as made:
        ratio = measure(made.executor_url)
    conclude("transport", f"cpu_ratio={ratio:.2f}", [Bound("CPU over the session's", ratio, at_most=BOUND)])


def measure(url: str) -> float:
    """Our CPU time divided by the session's: the median of all blocks."""
    transport = HttpTransport(ExecutorClientConfig(base_url=url), connections=1)
    session = requests.Session()

    def ours() -> None:
        transport.call("GET", "/v1/health").json()

    def theirs() -> None:
        session.get(f"{url}/v1/health", timeout=(5, 30)).json()

    pairs = [(cpu_us(ours), cpu_us(theirs)) for _ in range(BLOCKS)]
    mine, other = (statistics.median(each) for each in zip(*pairs, strict=True))
    print(f"CPU per call: {mine:.0f} us, requests.Session.get {other:.0f} us")
    return statistics.median(mine / other for mine, other in pairs)


def cpu_us(call: Callable[[], None]) -> float:
    """The CPU time of this process for one call, in microseconds."""
    begun = time.process_time()
    for _ in range(CALLS):
        call()
    return (time.process_time() - begun) / CALLS * 1e6


if __name__ == "__main__":
    run(main, __doc__)
