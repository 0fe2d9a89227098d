"""A plan that was submitted (`PlanHandle`), for threads and for asyncio."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dispatcher.arguments import waiting_time
from dispatcher.errors import (
    ExecutorClientError,
    PlanUnknownError,
    RecordUnreadableError,
    ResultTimeoutError,
)
from dispatcher.ledger import waits
from dispatcher.models import PlanState
from dispatcher.printable import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dispatcher.access import Access
    from dispatcher.ledger.record import PlanRecord
    from dispatcher.models import FaultPlan, PlanStatus
    from dispatcher.observations import RawObservation

__all__ = ["PlanHandle"]


class PlanHandle:
    """A submitted plan. Its `id` is all that is needed to find it again, from any process.

    Can be copied and pickled. A pickle holds no password: where it is loaded, it uses a Dispatcher of that
    process on the same Redis, or the settings of that process's environment.
    """

    def __init__(
        self,
        plan_id: str,
        access: Access,
        outcome: str | ExecutorClientError | None = None,
        plan: FaultPlan | None = None,
    ) -> None:
        """`outcome` is the stored result, or why the plan was refused, if that is known already."""
        self.id = plan_id
        self._access = access
        self._outcome = outcome
        self._plan = plan

    def __repr__(self) -> str:
        return f"PlanHandle({self.id!r})"

    @property
    def plan(self) -> FaultPlan:
        """What was submitted. Read from Redis if this process has not submitted it.

        Raises `PlanUnknownError`, `RecordUnreadableError`, `LedgerUnavailableError`.
        """
        if self._plan is None:
            self._plan = self.status().plan
        return self._plan

    async def plan_async(self) -> FaultPlan:
        """`plan`, for asyncio."""
        if self._plan is None:
            self._plan = (await self.status_async()).plan
        return self._plan

    @property
    def ended(self) -> bool:
        """Whether it is known here how the plan ended: `result` returns or raises at once then."""
        return self._outcome is not None

    @property
    def refusal(self) -> ExecutorClientError | None:
        """Why the plan was refused when it was submitted among many. None if it was taken."""
        return self._outcome if isinstance(self._outcome, ExecutorClientError) else None

    def status(self) -> PlanStatus:
        """Its state. Raises `PlanUnknownError`, `RecordUnreadableError`, `LedgerUnavailableError`."""
        return self._status(self._access.ledger.try_read([self.id]))

    async def status_async(self) -> PlanStatus:
        """`status`, for asyncio."""
        session = await self._access.session()
        return self._status(await session.exchange(self._access.ledger.reading([self.id])))

    def cancel(self, reason: str = "") -> bool:
        """Stop the plan's fault and end the plan with `PlanCancelledError`. False if it has ended already.

        Returns at once: the mark is durable, and `result` returns or raises once the fault is stopped. Raises
        `PlanUnknownError`, `LedgerUnavailableError`.
        """
        return self._cancelled(self._access.ledger.cancel([self.id], printable(reason)))

    async def cancel_async(self, reason: str = "") -> bool:
        """`cancel`, for asyncio."""
        session = await self._access.session()
        return self._cancelled(
            await session.exchange(self._access.ledger.cancelling([self.id], printable(reason)))
        )

    def result(self, timeout: float | None = None) -> RawObservation:
        """The plan's observation, waiting up to `timeout` seconds for it (forever if None).

        Raises the error that ended the plan, `ResultTimeoutError` if it has not ended in time,
        `PlanUnknownError`, `LedgerUnavailableError`, `InvalidSettingsError` if `timeout` is not a number.
        """
        timeout = waiting_time(timeout)
        if self._outcome is None:
            self._keep(*self._access.waiter.wait(self._end(timeout), timeout), timeout)
        return self._decoded()

    async def result_async(self, timeout: float | None = None) -> RawObservation:  # noqa: ASYNC109
        """`result`, for asyncio. A task that is cancelled stops waiting; the plan goes on."""
        timeout = waiting_time(timeout)
        if self._outcome is None:
            session = await self._access.session()
            with session.watch([self.id]) as watch:
                ends = await watch.ends(timeout)
            if ends:
                self._keep(None, ends[self.id], timeout)
            else:
                self._keep(*await session.wait(self._end(0)), timeout)
        return self._decoded()

    def with_end(self, end: waits.End) -> PlanHandle:
        """A handle that has the plan's stored result at hand, or why there is none."""
        if isinstance(end, PlanState):
            end = self._without_result(end)
        unknown = PlanUnknownError(f"plan {self.id} is unknown: its record is lost")
        return PlanHandle(self.id, self._access, end or unknown, self._plan)

    def _end(self, timeout: float | None) -> waits.Wait[tuple[PlanState | None, str | None]]:
        return waits.result_of(self._access.ledger, self.id, self._access.results.key(self.id), timeout)

    def _keep(self, state: PlanState | None, end: waits.End, timeout: float | None) -> None:
        """Remember how the plan ended. Raises `ResultTimeoutError` if it has not."""
        if state is not None and not state.final:
            message = f"plan {self.id} has not ended within {timeout:g} s"
            raise ResultTimeoutError(f"{message}: it is {state}; it goes on, ask again later")
        if isinstance(end, ExecutorClientError):
            raise end
        without_result = end if isinstance(end, PlanState) else state if end is None else None
        if without_result is not None:
            raise self._without_result(without_result)
        self._outcome = end

    def _decoded(self) -> RawObservation:
        if self._outcome is None:
            raise self._unknown()
        if isinstance(self._outcome, ExecutorClientError):
            raise self._outcome
        return self._access.results.decode(self.id, self._outcome)

    def _status(self, found: Sequence[PlanRecord | RecordUnreadableError | None]) -> PlanStatus:
        [record] = found
        if record is None:
            raise self._unknown()
        if isinstance(record, RecordUnreadableError):
            raise record
        return record.status()

    def _cancelled(self, answers: Sequence[bool | None]) -> bool:
        [cancelled] = answers
        if cancelled is None:
            raise self._unknown()
        return cancelled

    def _without_result(self, state: PlanState) -> PlanUnknownError:
        gone = "its result is gone, because it has expired or was forgotten"
        return PlanUnknownError(f"plan {self.id} is {state}, but {gone}")

    def _unknown(self) -> PlanUnknownError:
        return PlanUnknownError(f"plan {self.id} is unknown: its id is wrong, or its record has expired")
