"""What clients of the service meet while a fault is in force, and what the Executor counts of it."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import TYPE_CHECKING

from conformance.check import Checks, Grade
from conformance.checks.basics import a_delay_is_applied, a_target_is_free_after_its_fault
from conformance.checks.keys import a_late_apply_is_refused
from conformance.checks.stops import a_stop_is_confirmed
from conformance.checks.truth import a_window_is_as_long_as_its_fault, metrics_count_requests
from conformance.errors import SkippedError
from conformance.reading import fields_of, held, read_as, shown
from conformance.stories import window_of
from conformance.traffic_stories import (
    ABORT_STATUS,
    IN_FORCE_WITHIN_S,
    LATEST_S,
    MANY,
    PROBE_EVERY_S,
    SENT,
    during_a_fault,
    fault_on_the_traffic,
    half_of_the_traffic_is_hit,
    in_force,
    time_until_in_force,
)
from workers.drivers.fault_answers import MetricsAnswer
from workers.drivers.moments import rfc3339

if TYPE_CHECKING:
    from conformance.outside import Response
    from conformance.subject import Subject

__all__ = ["HITS", "LEAST_HIT", "an_abort_hits_the_traffic"]

FEW = 3
LEAST_HIT = 16
"""How many of `SENT` requests a fault of 100 % must hit. Data planes may miss some."""

DEVIATIONS = 5
"""By how many standard deviations the share may differ: more is chance once in 2 million times."""

FEWEST = 2 * DEVIATIONS**2
"""With half as many requests, not even a fault that hits all of them would differ by more."""

FIRST_ERROR, RATE_TOLERANCE = 400, 0.01
DELAY_MS = 300

HITS = Checks()
required, recommended = Grade.REQUIRED, Grade.RECOMMENDED


@HITS.add(
    required,
    f"{ABORT_STATUS} for at least {LEAST_HIT} of {SENT} requests",
    "Send the requests of --probe through the data plane, to a service that the Executor knows by its name",
    a_target_is_free_after_its_fault,
)
def an_abort_hits_the_traffic(subject: Subject) -> str:
    traffic = subject.needed_traffic()
    before = {traffic.send().status for _ in range(SENT)}
    held(not before & {0, ABORT_STATUS}, f"status {_in_words(before)} before any fault was applied")
    statuses = [each.status for each in during_a_fault(subject)[1]]
    hit = statuses.count(ABORT_STATUS)
    return held(hit >= LEAST_HIT, f"{hit} of {SENT} with {ABORT_STATUS}, others {_in_words(set(statuses))}")


@HITS.add(
    recommended,
    f"the first response with the fault within {IN_FORCE_WITHIN_S:g} s",
    "Set takes_effect_sec, which `dispatcher conformance --measure-effect` measures",
    a_target_is_free_after_its_fault,
)
def a_fault_is_in_force_when_its_apply_is_answered(subject: Subject) -> str:
    late_s = subject.once(time_until_in_force)
    if late_s > LATEST_S:
        raise SkippedError(f"no response met the fault within {LATEST_S:g} s")
    seen = f"{late_s:.2f} s after the answer"
    return held(
        late_s <= IN_FORCE_WITHIN_S, seen if late_s <= IN_FORCE_WITHIN_S else f"takes effect late: {seen}"
    )


@HITS.add(
    required,
    f"{DELAY_MS} ms for at least {LEAST_HIT} of {SENT} requests, and the service's own answer",
    "Hold each request for delay_ms, and forward it then",
    an_abort_hits_the_traffic,
    a_delay_is_applied,
)
def a_delay_holds_the_traffic(subject: Subject) -> str:
    _, responses = during_a_fault(subject, fault_type="delay", fault_config={"delay_ms": DELAY_MS})
    held_ones = [
        each for each in responses if each.seconds * 1000 >= DELAY_MS - 1 and each.status != ABORT_STATUS
    ]
    longest_ms = max(each.seconds for each in responses) * 1000
    return held(len(held_ones) >= LEAST_HIT, f"{len(held_ones)} of {SENT} held, at most {longest_ms:.0f} ms")


@HITS.add(
    required,
    "no request",
    "Hit no request with a percentage of 0",
    an_abort_hits_the_traffic,
)
def a_fault_of_0_percent_hits_no_request(subject: Subject) -> str:
    return _no_hit(during_a_fault(subject, percentage=0)[1])


@HITS.add(
    required,
    "no request",
    "Hit only the path that the apply names, with any query",
    an_abort_hits_the_traffic,
)
def other_paths_are_not_hit(subject: Subject) -> str:
    return _no_hit(during_a_fault(subject, suffix="-conformance")[1])


@HITS.add(
    required,
    f"{ABORT_STATUS} for about half of {MANY} requests",
    "Draw for each request, with the percentage as its chance",
    an_abort_hits_the_traffic,
)
def a_percentage_hits_its_share(subject: Subject) -> str:
    statuses = [each.status for each in subject.once(half_of_the_traffic_is_hit).responses]
    hit, sent = statuses.count(ABORT_STATUS), len(statuses)
    if sent < FEWEST:
        raise SkippedError(f"only {sent} requests were sent in time: at least {FEWEST} are needed")
    return held(abs(hit - sent / 2) <= DEVIATIONS * math.sqrt(sent) / 2, f"{hit} of {sent}")


@HITS.add(
    required,
    f"as many requests as were sent, and as many faulted as were answered with {ABORT_STATUS}",
    "Count each request that arrives in the window once. Give --probe a path without other traffic",
    an_abort_hits_the_traffic,
    metrics_count_requests,
)
def the_counts_match_the_traffic(subject: Subject) -> str:
    hit = subject.once(half_of_the_traffic_is_hit)
    sent = len(hit.responses)
    met = [each.status for each in hit.responses].count(ABORT_STATUS)
    counted = read_as(MetricsAnswer, hit.metrics)
    errors = len([each for each in hit.responses if not 0 < each.status < FIRST_ERROR])
    rate = counted.error_rate is None or abs(counted.error_rate - errors / sent) < RATE_TOLERANCE
    figures = f"requests {counted.requests}, faulted {counted.faulted}, error_rate {counted.error_rate}"
    seen = f"{figures}, after {sent} requests with {met} faults and {errors} errors"
    return held((counted.requests, counted.faulted) == (sent, met) and rate, seen)


@HITS.add(
    required,
    "a window that holds all responses with the fault, and ends with it",
    "Take start_time and end_time from the data plane, not from the request's arrival",
    an_abort_hits_the_traffic,
    a_window_is_as_long_as_its_fault,
)
def the_window_holds_all_that_was_hit(subject: Subject) -> str:
    hit = subject.once(half_of_the_traffic_is_hit)
    began, ended = window_of(hit.status) or (subject.clock.now(),) * 2
    lasted_s = (ended - began).total_seconds()
    seen = f"a window of {lasted_s:.2f} s, faults over {hit.span_s:.2f} s"
    return held(hit.span_s - PROBE_EVERY_S <= lasted_s <= hit.lasted_s + PROBE_EVERY_S, seen)


@HITS.add(
    required,
    f"no response with {ABORT_STATUS} after the status completed",
    "Answer completed only once the data plane is without the fault",
    an_abort_hits_the_traffic,
)
def a_completed_fault_hits_no_request(subject: Subject) -> str:
    return _no_hit(subject.once(half_of_the_traffic_is_hit).after)


@HITS.add(
    required,
    f"no response with {ABORT_STATUS} after the stop's answer",
    "Answer a stop with completed only once the data plane is without the fault",
    an_abort_hits_the_traffic,
    a_stop_is_confirmed,
)
def a_stopped_fault_hits_no_request(subject: Subject) -> str:
    traffic = subject.needed_traffic()
    apply_id = in_force(subject)
    for _ in range(FEW):
        traffic.send()
    status = fields_of(subject.stop(apply_id)).get("status")
    if status == "running":
        raise SkippedError("the stop's answer says that it is still running")
    return _no_hit([traffic.send() for _ in range(SENT)])


@HITS.add(
    required,
    f"no response with {ABORT_STATUS} after a 412",
    "Look at the clock before the data plane changes",
    an_abort_hits_the_traffic,
    a_late_apply_is_refused,
)
def a_refused_apply_hits_no_request(subject: Subject) -> str:
    traffic = subject.needed_traffic()
    late = rfc3339(subject.clock.now() - timedelta(days=1))
    seen = shown(subject.apply(fault_on_the_traffic(subject), {"Not-After": late}))
    return f"{seen}, and {_no_hit([traffic.send() for _ in range(SENT)])}"


def _no_hit(responses: list[Response]) -> str:
    hit = [each.status for each in responses].count(ABORT_STATUS)
    return held(hit == 0, f"{hit} of {len(responses)} with {ABORT_STATUS}")


def _in_words(statuses: set[int]) -> str:
    return ", ".join("no answer" if each == 0 else str(each) for each in sorted(statuses)) or "none"
