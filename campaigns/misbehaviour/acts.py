"""What an Executor does wrong with one fault. A seed and a number give the same misdeed in every process."""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from benchmarks.stage.plans import plan

if TYPE_CHECKING:
    from dispatcher import FaultPlan


class Act(StrEnum):
    """A way to treat a fault."""

    WELL = "well"
    """As it should be."""

    LATE = "late"
    """The fault begins some seconds after its apply."""

    EARLY_END = "early end"
    """The fault ends before its time, and the Executor says when."""

    REMOVED = "removed"
    """The same, and the Executor never says when a fault ended. A person may have removed it."""

    PAUSED = "paused"
    """The fault is off for some time in the middle. Only the number of faulted requests shows it."""

    RESUMED = "resumed"
    """The same. The Executor says that the fault began when it was on again."""

    FROZEN = "frozen"
    """The Executor answers nothing for a while. Meanwhile the fault goes on beyond its time."""

    LOST = "lost"
    """From some moment on the Executor does not know the fault, which goes on."""

    RESTARTED = "restarted"
    """The Executor forgets the fault and its key, and the fault is over."""

    FAILED = "failed"
    """The fault fails in the middle."""

    TOO_LONG = "too long"
    """The fault lasts some seconds too long."""

    ENDLESS = "endless"
    """The fault goes on until it is stopped."""

    UNSTOPPABLE = "unstoppable"
    """The fault goes on forever. A stop is answered with 202 or 404."""

    STOP_SLOW = "stop is slow"
    """The plan is cancelled. The stop is answered with 202 or 404, and the fault ends some seconds later."""

    STOP_IGNORED = "stop is ignored"
    """The plan is cancelled. The stop is answered with 202 or 404, and the fault goes on."""

    METRICS_LATE = "metrics late"
    """The metrics are not ready for some seconds after the fault's end."""

    METRICS_NEVER = "metrics never"
    """The metrics are never ready."""

    NO_COUNTS = "no counts"
    """The metrics have no numbers of requests."""

    ALL_ZERO = "all zero"
    """The same, and every figure is 0: the Executor has seen nothing."""

    NO_REQUESTS = "no requests"
    """No request came."""

    FEW_REQUESTS = "few requests"
    """A handful of requests came."""

    NOT_FAULTED = "not faulted"
    """Requests came, and the fault hit none."""

    CONTRADICTION = "contradiction"
    """The error rate is not what the counts say."""

    NO_WINDOW = "no window"
    """The Executor never says when a fault began or ended."""

    TRUNCATED = "truncated"
    """Far more log lines than an observation keeps."""


CANCELLED = {Act.STOP_SLOW, Act.STOP_IGNORED}
"""These happen to plans that are cancelled."""

MISDEEDS = [act for act in Act if act is not Act.WELL]
NOT_READY = (404, 409, 425, 202, 204, 200)
"""200 comes with an empty object."""

CANCELLED_DURATION_S = 40


@dataclass(frozen=True)
class Misdeed:
    """One act, and its particulars."""

    act: Act
    after_share: float
    """When it begins, as a share of the fault's duration."""

    seconds: float
    """How long it takes, or by how much something is late."""

    not_ready: int
    """How metrics that are not ready are answered."""

    stop: int
    """How a stop is answered that stops nothing."""


def misdeed_of(seed: int, number: int, plans: int) -> Misdeed:
    """What happens to plan `number`. Those from `plans` on are treated well."""
    chance = random.Random(f"{seed}/{number}")  # noqa: S311 (chaos is not a secret)
    return Misdeed(
        act=chance.choice(MISDEEDS) if number < plans else Act.WELL,
        after_share=chance.uniform(0.2, 0.6),
        seconds=chance.uniform(1.5, 3.0),
        not_ready=chance.choice(NOT_READY),
        stop=chance.choice((202, 404)),
    )


def plan_of(seed: int, number: int, plans: int) -> FaultPlan:
    """Plan `number`. It aborts half of the requests or all of them."""
    chance = random.Random(f"{seed}/plan/{number}")  # noqa: S311 (chaos is not a secret)
    cancelled = misdeed_of(seed, number, plans).act in CANCELLED
    duration_s = CANCELLED_DURATION_S if cancelled else chance.randint(4, 6)
    return plan(number, duration_s).model_copy(update={"percentage": chance.choice((50, 100))})
