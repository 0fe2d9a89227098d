"""How long a consumer pauses before it is restarted, so that it neither fills the log nor loses time."""

from __future__ import annotations

import logging
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import redis
from celery.exceptions import WorkerShutdown
from celery.worker import state
from kombu.exceptions import OperationalError
from redis.exceptions import NoPermissionError

from workers.tasks.bootsteps import ConsumerGuard

if TYPE_CHECKING:
    from collections.abc import Callable

REFUSED = NoPermissionError("NOPERM no permissions to access a channel", status_code="NOPERM")
TROUBLE = redis.ResponseError("READONLY You can't write against a read only replica.")


class Clock:
    """Time that passes only if something sleeps."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


class Guarded:
    """A guard and the consumer that it guards."""

    def __init__(self, *, hub: bool = True) -> None:
        self.soon: list[Callable[[], None]] = []
        self.consumer: Any = SimpleNamespace(
            connection_errors=(redis.ConnectionError,),
            channel_errors=(redis.ResponseError, redis.AuthenticationError),
            hub=SimpleNamespace(call_soon=self.soon.append) if hub else None,
            strategies=None,
        )
        self.guard = ConsumerGuard(self.consumer)

    def fail(self, error: Exception, *, receives: bool = False) -> None:
        self.guard.start(self.consumer)
        if receives:
            for call in self.soon:
                call()
        try:
            raise error  # noqa: TRY301 (as a step of Celery does)
        except Exception:  # noqa: BLE001 (as Celery does)
            self.guard.stop(self.consumer)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", lambda: clock.now_s)
    monkeypatch.setattr(time, "sleep", clock.sleep)
    return clock


def pauses(clock: Clock, guarded: Guarded, error: Exception, count: int, **how: bool) -> list[float]:
    """How long the consumer pauses each time that it fails with this error."""
    found = []
    for _ in range(count):
        before_s = clock.now_s
        guarded.fail(error, **how)
        found.append(round(clock.now_s - before_s, 3))
    return found


def wrapped(error: Exception) -> OperationalError:
    """As kombu raises it of a publish."""
    outer = OperationalError(str(error))
    outer.__cause__ = error
    return outer


@pytest.mark.parametrize(
    "error", [TROUBLE, redis.ConnectionError("gone"), wrapped(TROUBLE), OperationalError("x")]
)
def test_trouble_of_the_broker_is_waited_out_in_pauses_of_two_seconds(clock: Clock, error: Exception) -> None:
    assert pauses(clock, Guarded(), error, 7) == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]


@pytest.mark.parametrize(
    "error",
    [REFUSED, wrapped(REFUSED), redis.ResponseError("WRONGTYPE x"), redis.AuthenticationError("x")],
    ids=repr,
)
def test_a_refusal_is_logged_with_advice_in_pauses_that_grow_to_half_a_minute(
    clock: Clock, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert pauses(clock, Guarded(), error, 11)[-3:] == [25.6, 30.0, 30.0]
    assert len(caplog.messages) == 11
    assert caplog.messages[0].startswith("the broker refuses the consumer: ")


def test_a_consumer_that_fails_before_it_receives_is_not_the_fault_of_a_message(clock: Clock) -> None:
    assert pauses(clock, Guarded(), RuntimeError("a defect"), 11)[-2:] == [30.0, 30.0]


def test_many_wrong_messages_cost_a_tenth_of_a_second_each(clock: Clock) -> None:
    assert pauses(clock, Guarded(), ValueError("no JSON"), 20, receives=True) == [0.1] * 20
    assert pauses(clock, Guarded(hub=False), ValueError("no JSON"), 20) == [0.1] * 20


def test_a_consumer_that_ran_for_a_while_restarts_at_once(clock: Clock) -> None:
    guarded = Guarded()
    pauses(clock, guarded, REFUSED, 11)
    clock.now_s += 5.0
    assert pauses(clock, guarded, REFUSED, 2) == [0.0, 0.1]


def test_a_consumer_that_stops_without_an_error_does_not_pause(clock: Clock) -> None:
    guarded = Guarded()
    guarded.guard.stop(guarded.consumer)
    assert clock.now_s == 0.0


def test_a_worker_that_ends_is_not_held_up_by_its_consumer(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    guarded = Guarded()
    pauses(clock, guarded, REFUSED, 9)
    monkeypatch.setattr(state, "should_stop", 0)
    before_s = clock.now_s
    try:
        state.maybe_shutdown()
    except WorkerShutdown:
        guarded.guard.stop(guarded.consumer)
    assert clock.now_s == before_s


def test_a_worker_that_is_to_end_does_not_wait_for_the_pause(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    guarded = Guarded()
    pauses(clock, guarded, REFUSED, 9)
    monkeypatch.setattr(state, "should_stop", 0)
    with pytest.raises(WorkerShutdown):
        guarded.fail(REFUSED)
