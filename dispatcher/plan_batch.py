"""Plans that were submitted together (`PlanBatch`), for threads and for asyncio."""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING, Any

from dispatcher.arguments import waiting_time
from dispatcher.errors import ExecutorClientError, ResultTimeoutError
from dispatcher.export.frames import data_frame
from dispatcher.export.rows import rows_of
from dispatcher.ledger import waits
from dispatcher.printable import printable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence

    from dispatcher.access import Access
    from dispatcher.export.frames import Library
    from dispatcher.handles import PlanHandle
    from dispatcher.ledger.ledger import Ledger
    from dispatcher.ledger.waits import End
    from dispatcher.observations import RawObservation

__all__ = ["PlanBatch"]

COLLECT_S = 0.02
"""Who waits for all results anyway fetches those together that come within this time."""

IN_A_ROW = 20
"""Plans that have ended already and are handed out in asyncio before other tasks have their turn."""


class PlanBatch:
    """Plans that were submitted together, in the order in which they were."""

    def __init__(self, batch_id: str, handles: Sequence[PlanHandle], access: Access) -> None:
        self.id = batch_id
        self.handles = list(handles)
        self._access = access

    def __len__(self) -> int:
        return len(self.handles)

    def __iter__(self) -> Iterator[PlanHandle]:
        return iter(self.handles)

    def as_completed(self, timeout: float | None = None) -> Iterator[PlanHandle]:
        """Each plan as it ends, with its result at hand. May be called again, and then starts over.

        Raises `ResultTimeoutError` if not all have ended after `timeout` seconds.
        """
        yield from self._completed(_Progress(self, timeout))

    async def as_completed_async(self, timeout: float | None = None) -> AsyncIterator[PlanHandle]:  # noqa: ASYNC109
        """`as_completed`, for asyncio."""
        session, progress, count = await self._access.session(), _Progress(self, timeout), 0
        with session.watch(progress.pending) as watch:
            ended = iter(progress.known)
            while True:
                for handle in ended:
                    yield handle
                    count += 1
                    if count % IN_A_ROW == 0:
                        await asyncio.sleep(0)  # other tasks have their turn
                if not progress.pending:
                    return
                ends = await watch.ends(progress.left_sec)
                if not ends:
                    ends = {**await session.wait(progress.ended_by_now(self._access.ledger))}
                ended = progress.collect(ends)

    def results(self, timeout: float | None = None) -> list[RawObservation | ExecutorClientError]:
        """Each plan's observation, or the error that ended it, in the order of submission.

        Raises `ResultTimeoutError` if not all have ended after `timeout` seconds.
        """
        progress = _Progress(self, timeout)
        ended = self._completed(progress, collect_s=COLLECT_S)
        outcomes = {handle.id: _outcome(handle) for handle in ended}
        return [outcomes[handle.id] for handle in self.handles]

    async def results_async(
        self,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> list[RawObservation | ExecutorClientError]:
        """`results`, for asyncio."""
        outcomes = {handle.id: _outcome(handle) async for handle in self.as_completed_async(timeout)}
        return [outcomes[handle.id] for handle in self.handles]

    def cancel(self, reason: str = "") -> None:
        """Cancel every plan that has not ended."""
        for page in waits.pages([handle.id for handle in self.handles]):
            self._access.ledger.cancel(page, printable(reason))

    async def cancel_async(self, reason: str = "") -> None:
        """`cancel`, for asyncio."""
        session, ledger = await self._access.session(), self._access.ledger
        for page in waits.pages([handle.id for handle in self.handles]):
            await session.exchange(ledger.cancelling(page, printable(reason)))

    def to_dataframe(self, library: Library | None = None, *, traces: bool = False) -> Any:
        """A data frame with a row for each plan, in the order of submission. Does not wait for results.

        `library` is `polars` or `pandas`: the one that is installed if absent. The columns are in
        docs/columns.md, `logs` and `trace_data` only with `traces`. Figures of plans in flight are null.

        Raises `ExtraMissingError` if polars, pandas or pyarrow is not installed, `LedgerUnavailableError`.
        """
        ledger, results = self._access.ledger, self._access.results
        refused = {handle.id: handle.refusal for handle in self.handles if handle.refusal is not None}
        reading = rows_of(ledger, results, [handle.id for handle in self.handles], refused)
        return data_frame(ledger.carry_out(reading), library, traces=traces)

    def _completed(self, progress: _Progress, collect_s: float = 0.0) -> Iterator[PlanHandle]:
        """Each plan that ends. Those of `collect_s` seconds are fetched together."""
        yield from progress.known
        while progress.pending:
            wait = progress.next_page(self._access.ledger)
            yield from progress.collect(self._access.waiter.wait(wait, progress.left_sec))
            if progress.pending:
                time.sleep(min(collect_s, progress.left_sec))

    def result_keys(self, plan_ids: Iterable[str]) -> dict[str, str]:
        """The Redis keys of the plans' results, by the plans' ids."""
        return {plan_id: self._access.results.key(plan_id) for plan_id in plan_ids}


class _Progress:
    """How far one reader of a batch has come."""

    def __init__(self, batch: PlanBatch, timeout: float | None) -> None:
        self._batch = batch
        seconds = waiting_time(timeout)
        self._timeout = math.inf if seconds is None else seconds
        self._give_up_at = time.monotonic() + self._timeout
        self._place = "0"
        self.known = [handle for handle in batch.handles if handle.ended]
        known = {handle.id for handle in self.known}
        self.pending = {handle.id: handle for handle in batch.handles if handle.id not in known}

    @property
    def left_sec(self) -> float:
        """How much longer the reader will wait."""
        return max(0.0, self._give_up_at - time.monotonic())

    def next_page(self, ledger: Ledger) -> waits.Wait[dict[str, End]]:
        """Wait for more, and fetch the results."""
        self._place, ids = yield from waits.completions(
            ledger, self._batch.id, self._place, list(self.pending), self.left_sec
        )
        return (yield from waits.ends_of(ledger, self._batch.result_keys(ids)))

    def ended_by_now(self, ledger: Ledger) -> waits.Wait[dict[str, End]]:
        """Those that have ended, without waiting for more."""
        return waits.ended_among(ledger, self._batch.result_keys(self.pending))

    def collect(self, ends: Mapping[str, End]) -> Iterator[PlanHandle]:
        """The handles of those that have ended. Raises `ResultTimeoutError` if none has."""
        if not ends:
            message = f"{len(self.pending)} of {len(self._batch)} plans have not ended"
            raise ResultTimeoutError(f"{message} within {self._timeout:g} s; they go on, ask again later")
        for plan_id, end in ends.items():
            handle = self.pending.pop(plan_id, None)
            if handle is not None:
                yield handle.with_end(end)


def _outcome(handle: PlanHandle) -> RawObservation | ExecutorClientError:
    try:
        return handle.result()
    except ExecutorClientError as error:
        return error
