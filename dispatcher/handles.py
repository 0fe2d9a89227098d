"""Plans that were submitted: one (`PlanHandle`) or many (`PlanBatch`), for threads and for asyncio."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dispatcher.errors import ExecutorClientError, PlanUnknownError, ResultTimeoutError
from dispatcher.export.frames import data_frame
from dispatcher.export.rows import rows_of
from dispatcher.ledger import waits
from dispatcher.ledger.index import carried_out
from dispatcher.printable import printable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from dispatcher.export.frames import Library
    from dispatcher.ledger.ledger import Ledger
    from dispatcher.ledger.waits import AsyncWaiter, Waiter
    from dispatcher.models import PlanState, PlanStatus
    from dispatcher.observations import RawObservation
    from dispatcher.tasks.results import ResultCodec

__all__ = ["Access", "PlanBatch", "PlanHandle"]

COLLECT_S = 0.02
"""Who waits for all results anyway fetches those together that come within this time."""


@dataclass(frozen=True, slots=True)
class Access:
    """What handles need: the ledger, its results, and two ways to wait."""

    ledger: Ledger
    results: ResultCodec
    waiter: Waiter
    async_waiter: AsyncWaiter


class PlanHandle:
    """A submitted plan. Its `id` is all that is needed to find it again, from any process."""

    def __init__(
        self, plan_id: str, access: Access, outcome: str | ExecutorClientError | None = None
    ) -> None:
        """`outcome` is the stored result, or why the plan was refused, if that is known already."""
        self.id = plan_id
        self._access = access
        self._outcome = outcome

    def __repr__(self) -> str:
        return f"PlanHandle({self.id!r})"

    @property
    def refusal(self) -> ExecutorClientError | None:
        """Why the plan was refused when it was submitted among many. None if it was taken."""
        return self._outcome if isinstance(self._outcome, ExecutorClientError) else None

    def status(self) -> PlanStatus:
        """Its state. Raises `PlanUnknownError`, `RecordUnreadableError`, `LedgerUnavailableError`."""
        [record] = self._access.ledger.read([self.id])
        if record is None:
            raise self._unknown()
        return record.status()

    def cancel(self, reason: str = "") -> bool:
        """Stop the plan's fault and end the plan with `PlanCancelledError`. False if it has ended already.

        Returns at once: the mark is durable, and `result` returns or raises once the fault is stopped. Raises
        `PlanUnknownError`, `LedgerUnavailableError`.
        """
        [cancelled] = self._access.ledger.cancel([self.id], printable(reason))
        if cancelled is None:
            raise self._unknown()
        return cancelled

    def result(self, timeout: float | None = None) -> RawObservation:
        """The plan's observation, waiting up to `timeout` seconds for it (forever if None).

        Raises the error that ended the plan, `ResultTimeoutError` if it has not ended in time,
        `PlanUnknownError`, `LedgerUnavailableError`.
        """
        if self._outcome is None:
            state, stored = self._access.waiter.wait(self._end(timeout), timeout)
            self._check(state, timeout)
            self._outcome = stored
        return self._decoded()

    async def result_async(self, timeout: float | None = None) -> RawObservation:  # noqa: ASYNC109
        """`result`, for asyncio."""
        if self._outcome is None:
            state, stored = await self._access.async_waiter.wait(self._end(timeout), timeout)
            self._check(state, timeout)
            self._outcome = stored
        return self._decoded()

    def _end(self, timeout: float | None) -> waits.Wait[tuple[PlanState | None, str | None]]:
        return waits.result_of(self._access.ledger, self.id, self._access.results.key(self.id), timeout)

    def _check(self, state: PlanState | None, timeout: float | None) -> None:
        if state is not None and not state.final:
            message = f"plan {self.id} has not ended within {timeout:g} s"
            raise ResultTimeoutError(f"{message}: it is {state}; it goes on, ask again later")

    def _decoded(self) -> RawObservation:
        if self._outcome is None:
            raise self._unknown()
        if isinstance(self._outcome, ExecutorClientError):
            raise self._outcome
        return self._access.results.decode(self.id, self._outcome)

    def _unknown(self) -> PlanUnknownError:
        return PlanUnknownError(f"plan {self.id} is unknown: its id is wrong, or its record has expired")


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
        """Each plan as it ends, with its result at hand. May be called again, and then begins again.

        Raises `ResultTimeoutError` if not all have ended after `timeout` seconds.
        """
        yield from self._completed(_Progress(self, timeout))

    async def as_completed_async(self, timeout: float | None = None) -> AsyncIterator[PlanHandle]:  # noqa: ASYNC109
        """`as_completed`, for asyncio."""
        progress = _Progress(self, timeout)
        for handle in progress.refused:
            yield handle
        while progress.pending:
            wait = progress.next_page(self._access.ledger)
            page = await self._access.async_waiter.wait(wait, progress.left_sec)
            for handle in progress.collect(page):
                yield handle

    def results(self, timeout: float | None = None) -> list[RawObservation | ExecutorClientError]:
        """Each plan's observation, or the error that ended it, in the order of submission.

        Raises `ResultTimeoutError` if not all have ended after `timeout` seconds.
        """
        progress = _Progress(self, timeout)
        ended = self._completed(progress, collect_s=COLLECT_S)
        outcomes = {handle.id: _outcome(handle) for handle in ended}
        return [outcomes[handle.id] for handle in self.handles]

    def cancel(self, reason: str = "") -> None:
        """Cancel every plan that has not ended."""
        ledger = self._access.ledger
        for page in waits.pages([handle.id for handle in self.handles]):
            ledger.cancel(page, printable(reason))

    def to_dataframe(self, library: Library | None = None, *, traces: bool = False) -> Any:
        """A data frame with a row for each plan, in the order of submission. Does not wait for results.

        `library` is `polars` or `pandas`: the one that is installed if absent. The columns are in
        docs/columns.md, `logs` and `trace_data` only with `traces`. Figures of plans in flight are null.

        Raises `ExtraMissingError` if polars, pandas or pyarrow is not installed, `LedgerUnavailableError`.
        """
        ledger, results = self._access.ledger, self._access.results
        refused = {handle.id: handle.refusal for handle in self.handles if handle.refusal is not None}
        reading = rows_of(ledger, results, [handle.id for handle in self.handles], refused)
        return data_frame(carried_out(reading, ledger.try_all), library, traces=traces)

    def _completed(self, progress: _Progress, collect_s: float = 0.0) -> Iterator[PlanHandle]:
        """Each plan that ends. Those of `collect_s` seconds are fetched together."""
        yield from progress.refused
        while progress.pending:
            wait = progress.next_page(self._access.ledger)
            yield from progress.collect(self._access.waiter.wait(wait, progress.left_sec))
            if progress.pending:
                time.sleep(min(collect_s, progress.left_sec))

    def with_outcome(self, plan_id: str, stored: str | None) -> PlanHandle:
        """The handle of a plan that has ended."""
        unknown = PlanUnknownError(f"plan {plan_id} is unknown: its record is lost")
        return PlanHandle(plan_id, self._access, stored or unknown)

    def result_key(self, plan_id: str) -> str:
        """Where a plan's result is."""
        return self._access.results.key(plan_id)


class _Progress:
    """How far one reader of a batch has come."""

    def __init__(self, batch: PlanBatch, timeout: float | None) -> None:
        self._batch = batch
        self._timeout = math.inf if timeout is None else timeout
        self._give_up_at = time.monotonic() + self._timeout
        self._place = "0"
        self.refused = [handle for handle in batch.handles if handle._outcome is not None]  # noqa: SLF001
        refused = {handle.id for handle in self.refused}
        self.pending = {handle.id: None for handle in batch.handles if handle.id not in refused}

    @property
    def left_sec(self) -> float:
        """How much longer the reader will wait."""
        return max(0.0, self._give_up_at - time.monotonic())

    def next_page(self, ledger: Ledger) -> waits.Wait[tuple[str, dict[str, str | None]]]:
        """Wait for more, and fetch the results."""
        cursor, ids = yield from waits.completions(
            ledger, self._batch.id, self._place, list(self.pending), self.left_sec
        )
        stored = yield from waits.values_of([self._batch.result_key(plan_id) for plan_id in ids])
        return cursor, dict(zip(ids, stored, strict=True))

    def collect(self, page: tuple[str, dict[str, str | None]]) -> Iterator[PlanHandle]:
        """The handles of those that have ended."""
        self._place, outcomes = page
        if not outcomes:
            message = f"{len(self.pending)} of {len(self._batch)} plans have not ended"
            raise ResultTimeoutError(f"{message} within {self._timeout:g} s; they go on, ask again later")
        for plan_id, stored in outcomes.items():
            if plan_id in self.pending:
                del self.pending[plan_id]
                yield self._batch.with_outcome(plan_id, stored)


def _outcome(handle: PlanHandle) -> RawObservation | ExecutorClientError:
    try:
        return handle.result()
    except ExecutorClientError as error:
        return error
