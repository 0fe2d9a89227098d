"""So many tasks go on in one turn of an event loop, in their order."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from dispatcher.turns import MOST_TASKS, Turns


@given(count=st.integers(0, 200), cancelled=st.sets(st.integers(0, 199)))
def test_no_turn_has_more_tasks_than_it_may_and_all_go_on_in_their_order(
    count: int, cancelled: set[int]
) -> None:
    async def scenario() -> None:
        turns, turn, gone_on = Turns(), 0, []

        async def one(number: int) -> None:
            await turns.mine()
            gone_on.append((turn, number))

        tasks = [asyncio.create_task(one(number)) for number in range(count)]
        later = {number for number in cancelled if MOST_TASKS <= number < count}
        while not all(task.done() for task in tasks):
            await asyncio.sleep(0)
            turn += 1
            for number in later:
                tasks[number].cancel()
        assert [number for _, number in gone_on] == [each for each in range(count) if each not in later]
        sizes = [sum(at == each for at, _ in gone_on) for each in range(turn + 1)]
        assert max(sizes) <= MOST_TASKS

    asyncio.run(scenario())


def test_a_task_goes_on_at_once_if_no_other_does() -> None:
    async def scenario() -> None:
        turns = Turns()
        for _ in range(3 * MOST_TASKS):
            await turns.mine()
            await asyncio.sleep(0)

    asyncio.run(scenario())
