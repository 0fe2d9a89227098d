"""The line to a service on loopback and the fake one behave alike."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import pytest
from support.fake_target import FakeTarget
from support.service import Service

from dispatcher.settings.observers import ProbeSettings, ServiceSettings
from workers.observers.pace import Slot
from workers.observers.request import ProbeRequest
from workers.observers.target import HttpTarget

if TYPE_CHECKING:
    from collections.abc import Iterator

    from workers.observers.target import Target

SETTINGS = ProbeSettings(kind="probe")


class Targets(Protocol):
    """Opens a target that answers at once, or not at all."""

    def __call__(self, *, answers: bool) -> Target: ...


@pytest.fixture(params=["a service", "the fake"])
def opened(request: pytest.FixtureRequest) -> Iterator[Targets]:
    if request.param == "the fake":
        yield lambda *, answers: FakeTarget(lambda _: 0.0 if answers else 60.0)
        return
    with Service() as service:
        target = HttpTarget("Shop", ServiceSettings(base_url=service.url), 4, 35.0)

        def open_target(*, answers: bool) -> Target:
            if not answers:
                service.let_go.clear()
            return target

        yield open_target
        service.let_go.set()
        target.close()


def slot_at(at: float, gives_up_s: float = 35.0) -> Slot:
    return Slot(1000, 1050, at, at + gives_up_s)


PLAIN = ProbeRequest.of(SETTINGS, ServiceSettings(base_url="http://shop"), "/pay")


def test_a_line_without_requests_waits_for_none(opened: Targets) -> None:
    target = opened(answers=True)
    began = target.now()
    line = target.line(PLAIN, began + 30)
    assert line.is_answered(began + 30)
    assert target.now() < began + 20
    assert line.probes() == []


def test_all_requests_are_answered_some_time(opened: Targets) -> None:
    target = opened(answers=True)
    line = target.line(PLAIN, target.now() + 30)
    for _ in range(6):
        line.send(slot_at(target.now()))
    assert line.is_answered(target.now() + 30)
    probes = line.probes()
    assert [(probe.outcome, probe.expected, probe.incomplete) for probe in probes] == [
        ("200", True, False)
    ] * 6


def test_a_request_that_would_be_sent_after_the_faults_end_is_neither_sent_nor_counted(
    opened: Targets,
) -> None:
    target = opened(answers=True)
    now = target.now()
    line = target.line(PLAIN, now + 30)
    line.send(replace(slot_at(now), latest_at=now))
    line.send(replace(slot_at(now), latest_at=now + 20))
    assert line.is_answered(now + 30)
    assert [probe.outcome for probe in line.probes()] == ["200"]


def test_a_line_sleeps_until_a_moment(opened: Targets) -> None:
    target = opened(answers=True)
    at = target.now() + 0.05
    target.line(PLAIN, at).sleep_until(at)
    assert target.now() >= at


@pytest.mark.parametrize("gives_up_s", [0.1, 35.0])
def test_a_request_that_is_held_is_waited_for_in_vain_and_given_up(
    opened: Targets, gives_up_s: float
) -> None:
    target = opened(answers=False)
    began = target.now()
    line = target.line(PLAIN, began + 0.3)
    line.send(slot_at(began, gives_up_s))
    assert not line.is_answered(began + 0.05)
    line.is_answered(began + 0.3)
    [probe] = line.probes()
    assert (probe.outcome, probe.expected) == ("timeout", False)
    assert probe.incomplete == (gives_up_s > 0.3)
    assert probe.latency_us >= min(gives_up_s, 0.3) * 1e6 - 1
