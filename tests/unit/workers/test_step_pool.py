"""The threads that take steps."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

import pytest
from support.eventually import eventually
from workers.step_pool import StepPool

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def pool(request: pytest.FixtureRequest) -> Iterator[StepPool]:
    pool = StepPool(request.param)
    pool.start()
    yield pool
    pool.stop()


@pytest.mark.parametrize("pool", [2], indirect=True)
def test_as_many_steps_as_threads_are_taken_at_once(pool: StepPool) -> None:
    both = threading.Barrier(3)
    pool.apply_async(both.wait)
    pool.apply_async(both.wait)
    both.wait(5)
    assert pool.info["max-concurrency"] == pool.info["threads"] == 2


@pytest.mark.parametrize("pool", [1], indirect=True)
@pytest.mark.parametrize("defect", [ZeroDivisionError(), SystemExit(1)], ids=repr)
def test_a_thread_survives_whatever_a_step_does(
    pool: StepPool, defect: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    def breaks() -> None:
        raise defect

    done = threading.Event()
    pool.apply_async(breaks)
    pool.apply_async(done.set)
    assert done.wait(5)
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


def test_stopping_finishes_the_steps_under_way_and_drops_those_that_none_has_taken() -> None:
    pool = StepPool(1)
    pool.start()
    begun, go_on = threading.Event(), threading.Event()
    taken: list[str] = []

    def first() -> None:
        begun.set()
        assert go_on.wait(5)
        taken.append("first")

    pool.apply_async(first)
    pool.apply_async(lambda: taken.append("second"))
    pool.apply_async(lambda: taken.append("third"))
    assert begun.wait(5)
    stopping = threading.Thread(target=pool.stop)
    stopping.start()
    eventually(lambda: pool._steps.qsize() == 1, within_s=5)  # the word to end, in place of both
    go_on.set()
    stopping.join(5)
    assert taken == ["first"]
