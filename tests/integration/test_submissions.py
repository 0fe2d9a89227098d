"""What is submitted is found again: by the ids of batches, by tags, and after a submission that broke off."""

from __future__ import annotations

import asyncio
import logging
import pickle
from typing import TYPE_CHECKING

import pytest
from pydantic import SecretStr
from support.plans import abort_plan

from dispatcher import (
    Dispatcher,
    FaultPlan,
    InvalidPlanError,
    LedgerUnavailableError,
    PartlySubmittedError,
    PlanBatch,
    PlanConflictError,
    PlanUnknownError,
    Settings,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from support.redis_server import RedisServer

PAGE = 500
"""How many plans one call to Redis carries."""


class StumbledError(Exception):
    """What a generator raises."""


@pytest.fixture
def dispatcher(settings: Settings) -> Iterator[Dispatcher]:
    with Dispatcher(settings) as dispatcher:
        yield dispatcher


def plans(count: int) -> Iterator[FaultPlan]:
    return (abort_plan(api=f"/{number}") for number in range(count))


def breaks_off(count: int, error: BaseException) -> Iterator[FaultPlan]:
    yield from plans(count)
    raise error


def ids(batch: PlanBatch) -> list[str]:
    return [handle.id for handle in batch]


def in_flight(dispatcher: Dispatcher) -> set[str]:
    return {status.id for status in dispatcher.in_flight()}


def test_a_batch_is_found_by_its_id_from_another_dispatcher(
    dispatcher: Dispatcher, settings: Settings
) -> None:
    batch = dispatcher.submit_many(plans(12), tags=["night"])
    with Dispatcher(settings) as other:
        again = other.batch(batch.id)
        assert ids(again) == ids(batch)
        assert {handle.status().tags for handle in again} == {("night",)}
        assert {handle.status().batch for handle in again} == {batch.id}
        again.cancel("enough")
    with pytest.raises(PlanUnknownError, match="batch nonsense is unknown"):
        dispatcher.batch("nonsense")


def test_plans_have_the_ids_that_the_caller_gives(dispatcher: Dispatcher) -> None:
    named = [f"monday-{number}" for number in range(3)]
    batch = dispatcher.submit_many(plans(3), plan_ids=iter(named), tags=["a"])
    again = dispatcher.submit_many(list(plans(3)), plan_ids=named, tags=["b"])
    assert ids(batch) == ids(again) == ids(dispatcher.batch(again.id)) == named
    assert dispatcher.count_in_flight() == 3
    assert {status.tags for status in dispatcher.history()} == {("a",)}
    other = dispatcher.submit_many([abort_plan(api="/other")], plan_ids=named[:1])
    assert [type(result) for result in other.results(0)] == [PlanConflictError]


def test_a_batch_by_its_id_leaves_out_plans_that_were_refused(dispatcher: Dispatcher) -> None:
    late = abort_plan(start_time="2020-01-01T00:00:00Z")
    batch = dispatcher.submit_many([abort_plan(), late, abort_plan(api="/x")])
    assert ids(dispatcher.batch(batch.id)) == [ids(batch)[0], ids(batch)[2]]


def test_a_generator_that_breaks_off_raises_what_was_submitted(dispatcher: Dispatcher) -> None:
    stumble = StumbledError("the optimiser stumbled")
    with pytest.raises(PartlySubmittedError, match="StumbledError: the optimiser stumbled") as caught:
        dispatcher.submit_many(breaks_off(PAGE + 7, stumble))
    error = caught.value
    assert error.__cause__ is stumble
    assert isinstance(error.submitted, PlanBatch)
    assert set(ids(error.submitted)) == set(error.plan_ids) == in_flight(dispatcher)
    assert len(error.plan_ids) == PAGE
    assert ids(dispatcher.batch(error.batch_id)) == error.plan_ids
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.submitted, copy.batch_id, copy.message) == (error.plan_ids, error.batch_id, error.message)


def test_an_error_before_the_first_page_is_raised_as_it_is(dispatcher: Dispatcher) -> None:
    with pytest.raises(StumbledError):
        dispatcher.submit_many(breaks_off(PAGE - 1, StumbledError()))
    assert dispatcher.count_in_flight() == 0


def test_an_item_that_is_not_a_plan_breaks_the_submission_off(dispatcher: Dispatcher) -> None:
    def mixed() -> Iterator[FaultPlan]:
        yield from plans(PAGE)
        yield "no plan"  # type: ignore[misc]

    with pytest.raises(PartlySubmittedError, match="plan 501 must be a FaultPlan, not str") as caught:
        dispatcher.submit_many(mixed())
    assert isinstance(caught.value.__cause__, InvalidPlanError)


def test_ctrl_c_passes_and_the_log_names_the_batch(
    dispatcher: Dispatcher, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), pytest.raises(KeyboardInterrupt):
        dispatcher.submit_many(breaks_off(PAGE, KeyboardInterrupt()))
    [message] = caplog.messages
    assert "500 plans of batch" in message
    assert len(dispatcher.batch(message.split()[4])) == PAGE


def test_plans_that_a_lost_redis_may_have_taken_are_named_apart(own_redis: RedisServer) -> None:
    def and_redis_is_lost() -> Iterator[FaultPlan]:
        yield from plans(PAGE)
        own_redis.kill()
        yield abort_plan(api="/late")

    settings = Settings(redis_url=SecretStr(own_redis.url), redis_timeout_sec=0.2)
    with Dispatcher(settings) as dispatcher, pytest.raises(PartlySubmittedError) as caught:
        dispatcher.submit_many(and_redis_is_lost())
    error = caught.value
    assert isinstance(error.__cause__, LedgerUnavailableError)
    assert len(error.plan_ids) == PAGE
    assert error.uncertain == [f"{error.batch_id}-{PAGE}"]
    assert "and perhaps 1 more" in error.message


def test_plans_that_a_full_redis_has_refused_are_not_submitted(own_redis: RedisServer) -> None:
    def and_memory_is_full() -> Iterator[FaultPlan]:
        yield from plans(PAGE)
        own_redis.client.config_set("maxmemory", "1")
        yield from plans(PAGE)

    with Dispatcher(Settings(redis_url=SecretStr(own_redis.url))) as dispatcher:
        with pytest.raises(PartlySubmittedError, match="OOM") as caught:
            dispatcher.submit_many(and_memory_is_full())
        error = caught.value
        assert isinstance(error.__cause__, LedgerUnavailableError)
        assert set(error.plan_ids) == in_flight(dispatcher)
        assert error.uncertain == []


def test_a_known_plan_belongs_to_both_batches(dispatcher: Dispatcher) -> None:
    first = dispatcher.submit_many(plans(2), plan_ids=["p1", "p2"])
    second = dispatcher.submit_many(plans(2), plan_ids=["p1", "p2"])
    assert first.id != second.id
    assert sorted(status.id for status in dispatcher.history(batch=second.id)) == ["p1", "p2"]


async def as_they_come(plans: Iterator[FaultPlan]) -> AsyncIterator[FaultPlan]:
    for plan in plans:
        yield plan


def test_in_asyncio_plans_have_the_ids_and_tags_that_the_caller_gives(settings: Settings) -> None:
    async def scenario() -> list[str]:
        async with Dispatcher(settings) as dispatcher:
            batch = await dispatcher.submit_many_async(
                plans(2), plan_ids=iter(["a-1", "a-2"]), tags=["night"]
            )
            again = await dispatcher.submit_many_async(as_they_come(plans(2)), plan_ids=["a-1", "a-2"])
            one = await dispatcher.submit_async(abort_plan(api="/one"), tags=["day"])
            assert ids(again) == ids(batch)
            assert {(await handle.status_async()).tags for handle in batch} == {("night",)}
            assert (await one.status_async()).tags == ("day",)
            return ids(batch)

    assert asyncio.run(scenario()) == ["a-1", "a-2"]


@pytest.mark.parametrize("wrong", [["a-1"], ["a-1", "a-2", "a-3"], ["a b", "c"], ["a-1", "a-1"]])
def test_in_asyncio_wrong_ids_submit_nothing(
    dispatcher: Dispatcher, settings: Settings, wrong: list[str]
) -> None:
    async def scenario() -> None:
        async with Dispatcher(settings) as asynchronous:
            await asynchronous.submit_many_async(plans(2), plan_ids=wrong)

    with pytest.raises(InvalidPlanError, match="plan_ids"):
        asyncio.run(scenario())
    assert in_flight(dispatcher) == set()


@pytest.mark.parametrize("count", [60, 1_200])
@pytest.mark.parametrize("asynchronous", [False, True], ids=["an iterator", "an asynchronous iterator"])
def test_in_asyncio_a_submission_that_breaks_off_names_what_was_submitted(
    dispatcher: Dispatcher,
    settings: Settings,
    count: int,
    asynchronous: bool,  # noqa: FBT001 (a parameter)
) -> None:
    async def scenario() -> None:
        given = breaks_off(count, StumbledError("the optimiser stumbled"))
        async with Dispatcher(settings) as other:
            await other.submit_many_async(as_they_come(given) if asynchronous else given)

    with pytest.raises(PartlySubmittedError, match="the optimiser stumbled") as caught:
        asyncio.run(scenario())
    assert isinstance(caught.value.__cause__, StumbledError)
    assert set(caught.value.plan_ids) == in_flight(dispatcher)
    assert caught.value.uncertain == []


def test_in_asyncio_what_is_not_a_plan_is_named_by_its_number(
    dispatcher: Dispatcher, settings: Settings
) -> None:
    async def scenario() -> None:
        async with Dispatcher(settings) as other:
            await other.submit_many_async([*plans(2), "no plan"])  # type: ignore[list-item]

    with pytest.raises(InvalidPlanError, match="plan 3 must be a FaultPlan, not str"):
        asyncio.run(scenario())
    assert in_flight(dispatcher) == set()
