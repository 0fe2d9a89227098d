"""Calls that wait for their time are made once: at that time, or when a caller needs them."""

from __future__ import annotations

import threading

import pytest
from support.eventually import eventually

from workers.later import LaterCalls

LONG_S = 600.0


def test_a_call_is_made_when_its_time_has_come() -> None:
    made: list[str] = []
    later = LaterCalls(0.01)
    later.add("a", lambda: made.append("a"))
    eventually(lambda: made == ["a"])
    later.make_all()
    assert made == ["a"]


def test_the_calls_about_a_topic_are_made_at_once_and_the_others_keep_waiting() -> None:
    made: list[str] = []
    later = LaterCalls(LONG_S)
    for topic in ("a", "b", "a"):
        later.add(topic, lambda topic=topic: made.append(topic))  # type: ignore[misc]
    later.make_all("a")
    assert made == ["a", "a"]
    later.make_all()
    assert made == ["a", "a", "b"]


def test_a_call_that_is_under_way_is_waited_for() -> None:
    begun, go_on, made = threading.Event(), threading.Event(), list[str]()

    def call() -> None:
        begun.set()
        go_on.wait(10)
        made.append("a")

    later = LaterCalls(0.0)
    later.add("a", call)
    assert begun.wait(10)
    waiter = threading.Thread(target=later.make_all)
    waiter.start()
    assert made == []
    go_on.set()
    waiter.join(10)
    assert made == ["a"]


def test_a_call_that_fails_does_not_keep_its_topic() -> None:
    def fail() -> None:
        raise RuntimeError("broken")

    later = LaterCalls(LONG_S)
    later.add("a", fail)
    with pytest.raises(RuntimeError):
        later.make_all()
    later.make_all()
