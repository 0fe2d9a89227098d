"""What the reference Executor does with 1,000 faults at once.

`python -m benchmarks.loads.executor_load`. Clients apply 1,000 faults concurrently over the faults API, each
to a path of its own, and stop them concurrently afterwards. Envoy, the Executor and the clients share this
machine:

    applies_per_s    from the first apply to the last answer. An apply is answered once its fault is in force
    in_force_p95_ms  from sending an apply to its fault's `start_time`, at which Envoy had it
    stops_per_s      from the first stop to the last answer
    executor_mb      memory of the Executor with all faults active (before: without any)
    envoy_mb         the same of Envoy

Exit code 1 if an apply or a stop fails. The same if a fault in force does not hit a request, or if one hits a
request after its end.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

import aiohttp

from benchmarks.stage.commands import free_port, python
from benchmarks.stage.page import markdown_table
from benchmarks.stage.plans import SERVICE, api, body
from benchmarks.stage.processes import memory_kb, open_more_files
from benchmarks.stage.program import Bound, conclude, quantile, run
from benchmarks.stage.stage import STUB, reference_executor, stage

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable

    from benchmarks.stage.stage import Stage

LASTS_S = 3_600
ABORTED, OK = 503, 200
LOOKED_AT = 50
"""How many targets get a request to see whether they have a fault."""

MOST_PRINTED = 10
HEAD = ["faults", "applies/s", "in force after p50 / p95 (ms)", "stops/s", "Executor (MB, before)"]
HEAD += ["Envoy (MB, before)"]


@dataclass
class Load:
    """One Executor under load, and what was found."""

    made: Stage
    session: aiohttp.ClientSession
    faults: int
    wrong: list[str] = field(default_factory=list)

    async def run(self) -> tuple[str, list[str]]:
        """Apply, look, stop and look: the line, and the row of a table."""
        before = self._memory_mb()
        sent, took_s = await self._timed(self._apply(number) for number in range(self.faults))
        listed = (await self._ask("GET", "/v1/faults"))["faults"]
        late_ms = [(_seconds(each["start_time"]) - sent[each["api"]]) * 1000 for each in listed]
        after = self._memory_mb()
        await self._look(ABORTED)
        _, stopped_s = await self._timed(self._stop(each["apply_id"]) for each in listed)
        await self._look(OK)
        if len(listed) != self.faults:
            self.wrong.append(f"{len(listed)} faults are listed, and not {self.faults}")
        p50, p95 = quantile(late_ms, 0.5), quantile(late_ms, 0.95)
        per_s, stops_per_s = self.faults / took_s, len(listed) / stopped_s
        line = f"faults={self.faults} applies_per_s={per_s:.0f}"
        line += f" in_force_p50_ms={p50:.0f} in_force_p95_ms={p95:.0f}"
        line += f" stops_per_s={stops_per_s:.0f} executor_mb={after[0]:.0f} envoy_mb={after[1]:.0f}"
        row = [f"{self.faults:,}", f"{per_s:.0f}", f"{p50:.0f} / {p95:.0f}", f"{stops_per_s:.0f}"]
        return line, row + [f"{now:.0f} ({then:.0f})" for now, then in zip(after, before, strict=True)]

    async def _timed(self, calls: Iterable[Awaitable[tuple[str, float]]]) -> tuple[dict[str, float], float]:
        begun = time.monotonic()
        done = dict(await asyncio.gather(*calls))
        return done, time.monotonic() - begun

    async def _apply(self, number: int) -> tuple[str, float]:
        """Apply one; its path, and when the apply was sent."""
        sent = time.time()
        applied = await self._ask("POST", "/v1/faults/apply", body(number, LASTS_S))
        if applied["status"] != "applied":
            self.wrong.append(f"an apply: {applied}")
        return api(number), sent

    async def _stop(self, apply_id: str) -> tuple[str, float]:
        stopped = await self._ask("DELETE", f"/v1/faults/{apply_id}")
        if stopped["status"] != "completed":
            self.wrong.append(f"a stop: {stopped}")
        return apply_id, time.time()

    async def _look(self, expected: int) -> None:
        """Send a request to some of the targets."""
        proxy = str(self.made.executor_said["proxy"])
        for number in range(0, self.faults, max(1, self.faults // LOOKED_AT)):
            async with self.session.get(proxy + api(number), headers={"Host": SERVICE}) as answer:
                if answer.status != expected:
                    self.wrong.append(f"{api(number)} is answered with {answer.status}, and not {expected}")

    async def _ask(self, method: str, path: str, content: Any = None) -> Any:
        async with self.session.request(method, self.made.executor_url + path, json=content) as answer:
            return await answer.json()

    def _memory_mb(self) -> tuple[float, float]:
        """Memory of the Executor itself, and of its Envoy."""
        said = self.made.executor_said
        return memory_kb(said["pid"]) / 1024, memory_kb(said["envoy_pid"]) / 1024


async def measure(faults: int) -> tuple[str, list[str], list[str]]:
    """The line, the row of a table, and what was wrong."""
    port, every = free_port(), aiohttp.TCPConnector(limit=0)
    with stage(reference_executor(0, port, SERVICE)) as made:
        made.add_servers([python(STUB[0], port)])  # answers as the service, too
        async with aiohttp.ClientSession(connector=every, timeout=aiohttp.ClientTimeout(300)) as session:
            load = Load(made, session, faults)
            return *await load.run(), load.wrong


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


def main(faults: int = 1_000) -> None:
    """Measure and print."""
    open_more_files()
    line, row, wrong = asyncio.run(measure(faults))
    print(*wrong[:MOST_PRINTED], markdown_table(HEAD, [row]), sep="\n")
    line = f"{line} wrong={len(wrong)}"
    conclude("executor-load", line, [Bound("answers that are wrong", len(wrong), at_most=0)])


if __name__ == "__main__":
    run(main, __doc__)
