"""What becomes of faults if the Executor is killed or hangs, and what it knows after a restart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from conformance.check import Checks, Grade
from conformance.checks.basics import an_ended_fault_has_a_status, an_ended_fault_has_metrics
from conformance.checks.hits import an_abort_hits_the_traffic
from conformance.checks.keys import a_key_outlives_its_fault
from conformance.checks.stops import a_stopped_fault_is_over
from conformance.checks.truth import a_status_and_metrics_have_a_doubt
from conformance.errors import SkippedError
from conformance.reading import fields_of, held, shown
from conformance.stories import a_fault_that_ends, settled_metrics, the_same_fault_again
from conformance.subject import LONGEST_S, SOON_S, needed
from conformance.traffic_stories import ABORT_STATUS, SENT
from dispatcher.errors import ExecutorClientError

if TYPE_CHECKING:
    from conformance.outside import Outage, Traffic
    from conformance.subject import Subject

__all__ = ["SURVIVAL"]

AWAY_S = 5.0
"""How long the Executor is away, and how long a fault may outlive it, in seconds."""

IN_FORCE_WITHIN_S = LONGEST_S / 2
PROBE_EVERY_S = 0.05
BACK_WITHIN_S = 60.0
OK, FIRST_FAILURE = 200, 500

SURVIVAL = Checks()
required, recommended = Grade.REQUIRED, Grade.RECOMMENDED


@dataclass(frozen=True, slots=True)
class Away:
    """What happened while the Executor was away, and after it came back."""

    apply_id: str
    """The fault that was in force at that moment."""

    in_force: bool
    """Whether a response had met it before. Otherwise its end was not observed."""

    outlived_s: float
    """From the kill, or the hang, until the last response with the fault."""

    sent: int
    answered: int
    """Of these requests, those that got any response."""

    failed: int
    """Of these requests, those that failed after the fault's last response."""

    back: bool
    """Whether the Executor is healthy again."""


def the_executor_is_killed(subject: Subject) -> Away:
    """Raises `SkippedError` if there is no command for it."""
    outage = needed(subject.kill, "no --kill and --start were given")
    subject.once(a_fault_that_ends)  # which it must know afterwards
    return _away(subject, outage)


def the_executor_hangs(subject: Subject) -> Away:
    """Raises `SkippedError` if there is no command for it."""
    return _away(subject, needed(subject.hang, "no --hang and --resume were given"))


def _away(subject: Subject, outage: Outage) -> Away:
    traffic, clock = subject.traffic, subject.clock
    on_traffic = {"service": traffic.service, "api": traffic.path} if traffic else {}
    apply_id = subject.applied_once_free(
        subject.body(**{"percentage": 100, "duration_seconds": LONGEST_S} | on_traffic)
    )
    in_force = traffic is not None and subject.until(
        lambda: traffic.send().status == ABORT_STATUS, IN_FORCE_WITHIN_S
    )
    try:
        outage.begin()
    except SkippedError:
        subject.stop_quietly([apply_id])
        raise
    left_s = clock.steady_s()
    try:
        responses = _until_back(subject, traffic, left_s)
    finally:
        outage.end()
    back = subject.until(lambda: _healthy(subject), BACK_WITHIN_S)
    hit = [at_s for at_s, status in responses if status == ABORT_STATUS]
    last_s = hit[-1] if hit else left_s
    answered = [status for _, status in responses if status != 0]
    failed = [status for at_s, status in responses if at_s > last_s and not 0 < status < FIRST_FAILURE]
    return Away(apply_id, in_force, last_s - left_s, len(responses), len(answered), len(failed), back)


def _until_back(subject: Subject, traffic: Traffic | None, left_s: float) -> list[tuple[float, int]]:
    """When requests were sent while the Executor was away, and their status."""
    responses = []
    while subject.clock.steady_s() < left_s + AWAY_S + 1:
        at_s = subject.clock.steady_s()
        if traffic is not None:
            responses.append((at_s, traffic.send().status))
        subject.clock.sleep(PROBE_EVERY_S)
    return responses


def _with_a_fault_in_force(away: Away) -> Away:
    """The same. Raises `FailedError` if there was no fault whose end could be observed."""
    held(away.in_force, f"no response met the fault within {IN_FORCE_WITHIN_S:g} s of its apply")
    return away


def _healthy(subject: Subject) -> bool:
    try:
        return subject.api.call("GET", "/v1/health").status == OK
    except ExecutorClientError:
        return False


@SURVIVAL.add(
    required,
    f"no response with the fault later than {AWAY_S:g} s after the kill",
    "Give each fault a time to live in the data plane, and renew it while the Executor is alive",
    an_abort_hits_the_traffic,
)
def a_fault_ends_soon_if_the_executor_is_killed(subject: Subject) -> str:
    away = _with_a_fault_in_force(subject.once(the_executor_is_killed))
    return held(away.outlived_s <= AWAY_S, f"the last one {away.outlived_s:.1f} s after the kill")


@SURVIVAL.add(
    recommended,
    "no request that fails once the fault is over",
    "Let the data plane be a process of its own, which goes on without the Executor",
    an_abort_hits_the_traffic,
)
def traffic_goes_on_without_the_executor(subject: Subject) -> str:
    away = subject.once(the_executor_is_killed)
    return held(away.failed == 0, f"{away.failed} of {away.sent} requests failed")


@SURVIVAL.add(
    recommended,
    f"GET /v1/health 200 within {BACK_WITHIN_S:g} s, then status and metrics as before the kill",
    "Store faults and figures on a disk (--state-dir): otherwise plans fail if the Executor restarts",
    an_ended_fault_has_a_status,
    an_ended_fault_has_metrics,
)
def an_ended_fault_is_known_after_a_restart(subject: Subject) -> str:
    away, ended = subject.once(the_executor_is_killed), subject.once(a_fault_that_ends)
    held(away.back, "it did not become healthy")
    now = subject.about(ended.apply_id, "status")
    held(now.ok and fields_of(now) == fields_of(ended.status), f"{shown(now)}, not {shown(ended.status)}")
    now = settled_metrics(subject, ended.apply_id)
    return held(
        now.ok and fields_of(now) == fields_of(ended.metrics), f"{shown(now)}, not {shown(ended.metrics)}"
    )


@SURVIVAL.add(
    required,
    f"a stop that is answered with success, and a status other than running within {SOON_S:g} s",
    "Store a fault before its apply is answered",
    an_ended_fault_is_known_after_a_restart,
    a_stopped_fault_is_over,
)
def a_running_fault_can_be_stopped_after_a_restart(subject: Subject) -> str:
    apply_id = subject.once(the_executor_is_killed).apply_id
    answer = subject.stop(apply_id)
    over = answer.ok and subject.until_over(apply_id, SOON_S)
    return held(over, f"{shown(answer)}, then {shown(subject.about(apply_id, 'status'))}")


@SURVIVAL.add(
    recommended,
    "a doubt, or status failed with error_msg",
    "Say that a window is not known exactly if the Executor was away meanwhile",
    a_running_fault_can_be_stopped_after_a_restart,
    a_status_and_metrics_have_a_doubt,
)
def a_fault_that_a_restart_met_has_a_doubt(subject: Subject) -> str:
    answer = subject.about(subject.once(the_executor_is_killed).apply_id, "status")
    fields = fields_of(answer)
    return held(
        fields.get("doubt") or (fields.get("status") == "failed" and fields.get("error_msg")), shown(answer)
    )


@SURVIVAL.add(
    required,
    "its apply_id",
    "Store keys with their faults: otherwise an apply that is repeated begins a second fault",
    an_ended_fault_is_known_after_a_restart,
    a_key_outlives_its_fault,
)
def a_key_is_known_after_a_restart(subject: Subject) -> str:
    return the_same_fault_again(subject)


@SURVIVAL.add(
    required,
    f"no response with the fault later than {AWAY_S:g} s after the hang",
    "Let the fault's time to live lapse in the data plane: a process that hangs renews nothing",
    an_abort_hits_the_traffic,
)
def a_fault_ends_soon_if_the_executor_hangs(subject: Subject) -> str:
    away = _with_a_fault_in_force(subject.once(the_executor_hangs))
    if away.answered == 0:
        raise SkippedError(
            "no request was answered while the Executor hung: hang its process, not its data plane"
        )
    return held(away.outlived_s <= AWAY_S, f"the last one {away.outlived_s:.1f} s after the hang")


@SURVIVAL.add(
    required,
    "a status other than running, and no response with the fault",
    "Look at the clock before anything is renewed: what has lapsed must not begin again",
    a_fault_ends_soon_if_the_executor_hangs,
)
def a_fault_that_a_hang_met_does_not_begin_again(subject: Subject) -> str:
    away, traffic = subject.once(the_executor_hangs), subject.needed_traffic()
    held(away.back, "it did not become healthy")
    subject.until_over(away.apply_id, SOON_S)
    hit = [each.status for each in (traffic.send() for _ in range(SENT))].count(ABORT_STATUS)
    status = subject.status(away.apply_id)
    return held(status != "running" and hit == 0, f"status {status}, {hit} of {SENT} with {ABORT_STATUS}")
