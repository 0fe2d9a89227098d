"""What many tasks submit at once goes together, and no task disturbs another."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.event_loop import run
from support.plans import abort_plan

from dispatcher import DispatcherClosedError, InvalidPlanError, LedgerUnavailableError
from dispatcher.ledger.group_commit import GroupCommit
from dispatcher.ledger.ledger import Submission
from dispatcher.ledger.record import Order

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dispatcher.errors import ExecutorClientError

GROUP = 10
ORDER = Order(plan=abort_plan(), timeout_ms=1000)


def submission(number: int) -> Submission:
    return Submission(f"p{number}", ORDER)


class Gate:
    """Takes groups, each once it is let through."""

    def __init__(self) -> None:
        self.groups: list[list[str]] = []
        self.passes = asyncio.Semaphore(0)
        self.error: Exception | None = None

    async def submit(self, group: Sequence[Submission]) -> list[ExecutorClientError | None]:
        self.groups.append([each.plan_id for each in group])
        await self.passes.acquire()
        if self.error is not None:
            raise self.error
        return [None] * len(group)

    @property
    def submitted(self) -> list[str]:
        return [plan_id for group in self.groups for plan_id in group]


async def begun(gate: Gate, groups: int = 1) -> None:
    while len(gate.groups) < groups:  # noqa: ASYNC110 (a few turns of the loop)
        await asyncio.sleep(0)


def test_what_comes_while_a_group_is_on_its_way_goes_together() -> None:
    async def scenario() -> list[int]:
        gate = Gate()
        commits = GroupCommit(gate.submit, GROUP)
        first = commits.put(submission(0))
        await begun(gate)
        rest = [commits.put(submission(number)) for number in range(1, GROUP + 2)]
        for _ in range(3):
            gate.passes.release()
        assert await asyncio.gather(first, *rest) == [None] * (GROUP + 2)
        assert gate.submitted == [f"p{number}" for number in range(GROUP + 2)]
        return [len(group) for group in gate.groups]

    assert run(scenario()) == [1, GROUP, 1]


@given(st.sets(st.integers(0, 9)), st.sets(st.integers(0, 9)))
def test_a_cancelled_submission_is_complete_or_it_never_was(early: set[int], late: set[int]) -> None:
    async def scenario() -> None:
        gate = Gate()
        commits = GroupCommit(gate.submit, GROUP)
        futures = [commits.put(submission(number)) for number in range(10)]
        for number in early:
            futures[number].cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for number in late:
            futures[number].cancel()
        gate.passes.release()
        await asyncio.gather(*futures, return_exceptions=True)
        assert gate.submitted == [f"p{number}" for number in range(10) if number not in early]
        assert {number for number in range(10) if futures[number].cancelled()} == early | late
        assert not commits._waiting

    run(scenario())


def test_a_group_that_fails_fails_for_each_task_and_for_no_later_one() -> None:
    async def scenario() -> None:
        gate = Gate()
        gate.error = LedgerUnavailableError("away")
        commits = GroupCommit(gate.submit, GROUP)
        pair = [commits.put(submission(number)) for number in range(2)]
        gate.passes.release()
        outcomes = await asyncio.gather(*pair, return_exceptions=True)
        assert [type(each) for each in outcomes] == [LedgerUnavailableError] * 2
        gate.error = None
        gate.passes.release()
        assert await commits.put(submission(2)) is None

    run(scenario())


def test_a_refusal_belongs_only_to_its_plan() -> None:
    async def refuse(group: Sequence[Submission]) -> list[ExecutorClientError | None]:
        return [InvalidPlanError("no") if each.plan_id == "p1" else None for each in group]

    async def scenario() -> list[bool]:
        commits = GroupCommit(refuse, GROUP)
        return [
            refusal is None
            for refusal in await asyncio.gather(*(commits.put(submission(number)) for number in range(3)))
        ]

    assert run(scenario()) == [True, False, True]


def test_closing_ends_what_has_not_begun() -> None:
    async def scenario() -> None:
        commits = GroupCommit(Gate().submit, GROUP)
        waiting = commits.put(submission(0))
        await commits.aclose()
        with pytest.raises(DispatcherClosedError):
            await waiting

    run(scenario())


def test_closing_ends_what_is_on_its_way_and_what_waits() -> None:
    async def scenario() -> None:
        gate = Gate()
        commits = GroupCommit(gate.submit, GROUP)
        first = commits.put(submission(0))
        await begun(gate)
        second = commits.put(submission(1))
        await commits.aclose()
        for future in (first, second):
            with pytest.raises(DispatcherClosedError, match="ask again by their ids"):
                await future

    run(scenario())
