"""The probe observer against real services on loopback."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from support.plans import abort_plan, plan_record
from support.service import Service

from dispatcher.errors import FaultUnobservedError, InvalidPlanError
from dispatcher.observations import Doubt
from dispatcher.settings.observers import ProbeSettings, ServiceSettings
from workers.observers.base import Phase
from workers.observers.probe import ProbeObserver
from workers.observers.seen import Seen
from workers.observers.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dispatcher.ledger.record import PlanRecord

API = "/pay"
BEGIN_MS = 1_700_000_000_000
DURATION_S = 4
END_MS = BEGIN_MS + DURATION_S * 1000
PATIENT_S = 30.0


@pytest.fixture
def service() -> Iterator[Service]:
    with Service() as service:
        yield service


@pytest.fixture
def probing(service: Service) -> Iterator[Callable[..., ProbeObserver]]:
    """Makes an observer of `PaymentService`. Its arguments are settings of the service."""
    opened: list[ProbeObserver] = []

    def make(**settings: Any) -> ProbeObserver:
        fields = {"base_url": service.url, "requests_per_sec": 20} | settings
        observer = ProbeObserver(
            ProbeSettings(kind="probe"), {"PaymentService": ServiceSettings.model_validate(fields)}
        )
        opened.append(observer)
        return observer

    yield make
    for each in opened:
        each.close()


def record(**changes: Any) -> PlanRecord:
    """Of a plan whose fault is in force from `BEGIN_MS` until `END_MS`."""
    plan = abort_plan(
        api=changes.pop("api", API), duration_seconds=DURATION_S, percentage=changes.pop("percentage", 100)
    )
    return plan_record("p1", plan=plan, apply_id="f1", applied_ms=BEGIN_MS, **changes)


def looked(
    observer: ProbeObserver, what: PlanRecord, phase: Phase, now_ms: int, within_s: float = PATIENT_S
) -> PlanRecord:
    return what.sampled(observer.sample(what, phase, now_ms, within_s))


def whole(observer: ProbeObserver, service: Service, faulty: int = 503, **changes: Any) -> PlanRecord:
    """The record once the target was seen before a fault, during it and after it."""
    what = looked(observer, record(**changes), Phase.BEFORE, BEGIN_MS - 1000)
    service.statuses[API] = [faulty]
    what = looked(observer, what, Phase.DURING, BEGIN_MS)
    service.statuses[API] = [200]
    return looked(observer, what, Phase.AFTER, END_MS)


def test_requests_are_spread_over_the_look(probing: Callable[..., ProbeObserver], service: Service) -> None:
    looked(probing(requests_per_sec=4), record(), Phase.BEFORE, BEGIN_MS)
    arrived = [call.at for call in service.calls]
    assert len(arrived) == 4
    assert arrived[-1] - arrived[0] >= 0.7


def test_the_figures_of_all_three_phases_are_there(
    probing: Callable[..., ProbeObserver], service: Service
) -> None:
    observation = probing().observation(whole(probing(), service), END_MS + 1500, PATIENT_S)
    before, after = observation.baseline, observation.recovery
    assert before is not None
    assert after is not None
    count = len(service.calls) - 40
    assert [each.requests for each in (before, observation, after)] == [20, count, 20]
    assert 20 <= count <= 80  # more than 20 if the machine is busy
    assert [each.error_rate for each in (before, observation, after)] == [0.0, 1.0, 0.0]
    assert [each.status_code for each in (before, observation, after)] == [200, 503, 200]
    assert (observation.execution_id, observation.faulted, observation.doubts) == ("f1", None, ())
    assert observation.started_at is not None
    assert observation.started_at.timestamp() * 1000 == BEGIN_MS
    assert observation.timestamp.timestamp() * 1000 == END_MS + 1500
    assert observation.logs[1].startswith(f"during the fault: {count} requests ({count} x 503), mean ")


def test_latency_counts_from_the_planned_moment_if_the_limit_holds_a_request_back(
    probing: Callable[..., ProbeObserver], service: Service
) -> None:
    observer = probing(requests_per_sec=5, concurrency=1)
    service.let_go.clear()
    timer = threading.Timer(
        1.2, service.let_go.set
    )  # by then all five are due: 1.2, 1.0, 0.8, 0.6 and 0.4 s late
    timer.start()
    seen = Seen.of(observer.sample(record(), Phase.DURING, BEGIN_MS, PATIENT_S))
    timer.join()
    first = seen.during[0]
    assert first.requests == 5
    assert first.mean_ms >= 790
    assert first.errors == 0


def test_a_request_without_an_answer_counts_for_as_long_as_it_was_held(
    probing: Callable[..., ProbeObserver], service: Service
) -> None:
    observer = probing(request_timeout_sec=0.3)
    service.let_go.clear()
    what = looked(observer, record(), Phase.DURING, BEGIN_MS)
    observation = observer.observation(what, END_MS, PATIENT_S)
    sent = observation.requests
    assert (observation.unanswered, observation.error_count) == (sent, sent)
    assert sent is not None
    assert len(service.calls) <= sent <= 80  # a busy machine sends fewer, and reads some too late
    assert (observation.error_rate, observation.status_code) == (1.0, None)
    assert observation.latency_ms is not None
    assert observation.latency_ms >= 299
    assert observation.doubts == ()


def test_a_fault_that_holds_requests_keeps_none_from_being_sent(
    probing: Callable[..., ProbeObserver], service: Service
) -> None:
    observer = probing()
    service.let_go.clear()
    timer = threading.Timer(6, service.let_go.set)  # after the fault's end: real requests take real time
    timer.start()
    what = looked(observer, record(), Phase.DURING, BEGIN_MS)
    timer.join()
    observation = observer.observation(what, END_MS, PATIENT_S)
    assert (observation.requests, observation.error_count) == (20 * DURATION_S, 0)
    assert observation.latency_ms == pytest.approx(4025, abs=500)  # from 6 s down to 2.05 s
    assert len(service.calls) == 20 * DURATION_S
    arrived = [call.at for call in service.calls]
    assert arrived[-1] - arrived[0] >= DURATION_S - 0.5


def test_a_measurement_ends_in_time_and_says_that_it_is_incomplete(
    probing: Callable[..., ProbeObserver], service: Service
) -> None:
    observer = probing()
    service.let_go.clear()
    began = time.monotonic()
    what = looked(observer, record(), Phase.DURING, BEGIN_MS, within_s=1.0)
    assert time.monotonic() - began < 20  # of the 35 s that a request may take
    observation = observer.observation(what, END_MS, PATIENT_S)
    assert (observation.requests, observation.unanswered) == (10, 10)
    assert observation.doubts == (Doubt.INCOMPLETE,)


def test_requests_that_the_limit_let_never_out_are_unanswered_and_named(
    probing: Callable[..., ProbeObserver], service: Service
) -> None:
    observer = probing(requests_per_sec=5, concurrency=1)
    service.let_go.clear()
    what = looked(observer, record(), Phase.DURING, BEGIN_MS, within_s=2.0)
    observation = observer.observation(what, END_MS, PATIENT_S)
    assert (observation.requests, observation.unanswered) == (5, 5)
    assert "4 x not sent" in observation.logs[1]
    assert observation.doubts == (Doubt.INCOMPLETE,)


@pytest.mark.parametrize("percentage", [0, 100])
@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (405, "set method"),
        (401, "set headers"),
        (404, "set path"),
        (503, "is the service healthy?"),
        (429, "requests_per_sec"),
    ],
)
def test_a_target_without_a_good_answer_before_the_fault_cannot_be_observed(
    probing: Callable[..., ProbeObserver], service: Service, status: int, advice: str, percentage: int
) -> None:
    service.statuses[API] = [status]
    with pytest.raises(FaultUnobservedError) as caught:
        probing().sample(record(percentage=percentage), Phase.BEFORE, BEGIN_MS, PATIENT_S)
    message = str(caught.value)
    assert "in the baseline" in message
    assert f"20 of 20 probes with GET /pay failed: 20 requests (20 x {status})" in message
    assert advice in message
    assert '[services.PaymentService.apis."/pay"]' in message


def test_an_answer_that_is_too_large_is_named(
    probing: Callable[..., ProbeObserver], service: Service
) -> None:
    service.content = b"x" * 2000
    with pytest.raises(
        FaultUnobservedError, match=r"20 x unreadable.*longer than max_response_bytes \(1000\)"
    ):
        probing(max_response_bytes=1000).sample(record(), Phase.BEFORE, BEGIN_MS, PATIENT_S)


def test_a_target_that_does_not_answer_before_the_fault_is_named(
    probing: Callable[..., ProbeObserver], service: Service
) -> None:
    service.let_go.clear()
    with pytest.raises(FaultUnobservedError, match=r"baseline.*20 x timeout.*request_timeout_sec"):
        probing(request_timeout_sec=0.2).sample(record(), Phase.BEFORE, BEGIN_MS, PATIENT_S)


def test_a_target_that_is_not_there_is_named(
    probing: Callable[..., ProbeObserver], free_tcp_port: int
) -> None:
    observer = probing(base_url=f"http://127.0.0.1:{free_tcp_port}")
    with pytest.raises(FaultUnobservedError, match=r"baseline.*20 x refused.*base_url"):
        observer.sample(record(), Phase.BEFORE, BEGIN_MS, PATIENT_S)


@pytest.mark.parametrize(("failures", "fit"), [(1, True), (10, True), (11, False)])
def test_a_baseline_may_have_as_many_failures_as_successes(
    probing: Callable[..., ProbeObserver], service: Service, failures: int, *, fit: bool
) -> None:
    observer = probing()
    service.statuses[API] = [500] * failures + [200]
    if not fit:
        with pytest.raises(FaultUnobservedError, match="11 of 20 probes"):
            observer.sample(record(), Phase.BEFORE, BEGIN_MS, PATIENT_S)
        return
    what = looked(observer, record(), Phase.BEFORE, BEGIN_MS)
    what = looked(observer, what, Phase.DURING, BEGIN_MS)
    observation = observer.observation(what, END_MS, PATIENT_S)
    assert observation.doubts == (Doubt.BASELINE_UNHEALTHY,)
    assert observation.baseline is not None
    assert observation.baseline.error_count == failures


def test_a_baseline_is_not_taken_while_the_fault_may_be_there(
    probing: Callable[..., ProbeObserver], service: Service
) -> None:
    before = looked(probing(), record(), Phase.BEFORE, BEGIN_MS)
    service.statuses[API] = [503]
    doubtful = before._replace(doubtful_ms=BEGIN_MS)
    assert looked(probing(), doubtful, Phase.BEFORE, BEGIN_MS + 500).seen == before.seen


def test_a_later_baseline_takes_the_place_of_an_earlier_one(
    probing: Callable[..., ProbeObserver], service: Service
) -> None:
    observer = probing()
    service.statuses[API] = [500, 200]
    what = looked(observer, record(), Phase.BEFORE, BEGIN_MS - 9000)
    what = looked(observer, what, Phase.BEFORE, BEGIN_MS - 1000)
    assert (Seen.of(what.seen).before.requests, Seen.of(what.seen).before.errors) == (20, 0)


@pytest.mark.parametrize(
    ("now_ms", "counted"),
    [(BEGIN_MS - 5000, 0), (BEGIN_MS - 500, 10), (BEGIN_MS, 20), (END_MS - 500, 10), (END_MS, 0)],
    ids=[
        "long before it",
        "half a second before its begin",
        "from its begin on",
        "half a second before its end",
        "from its end on",
    ],
)
def test_only_requests_that_are_planned_while_the_fault_is_in_force_count(
    probing: Callable[..., ProbeObserver], service: Service, now_ms: int, counted: int
) -> None:
    observer = probing()
    what = looked(observer, record(), Phase.DURING, now_ms)
    sent = len(service.calls)
    assert counted <= sent <= counted * (END_MS - BEGIN_MS) / 1000  # more than `counted` on a busy machine
    if counted:
        assert observer.observation(what, END_MS, PATIENT_S).requests == sent
    else:
        with pytest.raises(FaultUnobservedError, match="no probe was sent while the fault was in force"):
            observer.observation(what, END_MS, PATIENT_S)


@pytest.mark.parametrize(("latency_ms", "edge_ms"), [(0, 0), (120, 120), (900, 200)])
def test_no_request_is_sent_that_may_arrive_after_the_end_of_the_fault(
    probing: Callable[..., ProbeObserver], service: Service, latency_ms: int, edge_ms: int
) -> None:
    before = Tally(outcomes={"200": 10}, total_us=10_000 * latency_ms)
    service.statuses[API] = [503]
    what = record(seen=Seen().seen_before(before).to_text())
    [during] = Seen.of(
        probing(requests_per_sec=50).sample(what, Phase.DURING, END_MS - 900, PATIENT_S)
    ).during
    assert during.last_ms is not None
    assert END_MS - edge_ms - 25 <= during.last_ms < END_MS - edge_ms


def test_a_request_that_waited_for_the_limit_until_the_end_of_the_fault_is_not_sent(
    probing: Callable[..., ProbeObserver], service: Service
) -> None:
    observer = probing(requests_per_sec=5, concurrency=1)
    service.let_go.clear()
    timer = threading.Timer(1.5, service.let_go.set)  # after the end: real requests take real time
    timer.start()
    what = looked(observer, record(), Phase.DURING, END_MS - 1000)
    timer.join()
    assert len(service.calls) == 1
    observation = observer.observation(what, END_MS, PATIENT_S)
    assert (observation.requests, observation.status_code) == (1, 200)


def test_a_part_with_a_request_that_was_sent_after_the_real_end_does_not_count(
    probing: Callable[..., ProbeObserver], service: Service
) -> None:
    observer = probing(requests_per_sec=5, concurrency=1)
    service.let_go.clear()
    timer = threading.Timer(1.5, service.let_go.set)  # when the fault has really ended
    timer.start()
    what = looked(observer, record(), Phase.DURING, BEGIN_MS, within_s=4)
    timer.join()
    assert len(service.calls) >= 5
    with pytest.raises(FaultUnobservedError, match="no probe was sent"):
        observer.observation(what._replace(over_ms=BEGIN_MS + 1000), END_MS, PATIENT_S)


def test_a_fault_that_takes_effect_late_is_looked_at_late(
    probing: Callable[..., ProbeObserver], service: Service
) -> None:
    late = record(takes_effect_ms=2000)
    assert looked(probing(), late, Phase.DURING, BEGIN_MS).seen == ""
    assert looked(probing(), late, Phase.DURING, BEGIN_MS + 2000).seen
    assert len(service.calls) >= 20


def test_what_was_seen_after_an_early_end_does_not_count(
    probing: Callable[..., ProbeObserver], service: Service
) -> None:
    observer = probing()
    service.statuses[API] = [503]
    what = looked(observer, record(), Phase.DURING, BEGIN_MS)
    service.statuses[API] = [200]
    what = looked(observer, what, Phase.DURING, BEGIN_MS + 1000)
    assert observer.observation(what, END_MS, PATIENT_S).success_count
    over = what._replace(over_ms=BEGIN_MS + 1000)
    assert observer.observation(over, END_MS, PATIENT_S).error_rate == 1.0


def test_a_healthy_target_is_settled_at_once(probing: Callable[..., ProbeObserver], service: Service) -> None:
    observer = probing()
    what = whole(observer, service)
    assert observer.settled(what, END_MS + 1000)


def test_a_target_that_fails_is_settled_after_the_recovery_timeout(
    probing: Callable[..., ProbeObserver], service: Service
) -> None:
    observer = probing(recovery_timeout_sec=20)
    what = whole(observer, service)
    service.statuses[API] = [503]
    what = looked(observer, what, Phase.AFTER, END_MS + 1000)
    assert not observer.settled(what, END_MS + 19_999)
    assert observer.settled(what, END_MS + 20_000)
    observation = observer.observation(what, END_MS + 20_000, PATIENT_S)
    assert observation.doubts == (Doubt.NOT_RECOVERED,)
    assert observation.recovery is not None
    assert (observation.recovery.requests, observation.recovery.error_count) == (40, 20)


def test_a_target_that_becomes_healthy_is_settled(
    probing: Callable[..., ProbeObserver], service: Service
) -> None:
    observer = probing()
    what = whole(observer, service)
    service.statuses[API] = [503]
    what = looked(observer, what, Phase.AFTER, END_MS + 1000)
    service.statuses[API] = [200]
    what = looked(observer, what, Phase.AFTER, END_MS + 2000)
    assert observer.settled(what, END_MS + 3000)
    assert observer.observation(what, END_MS + 3000, PATIENT_S).doubts == ()


def test_a_target_that_is_slower_than_before_is_not_healthy(
    probing: Callable[..., ProbeObserver], service: Service
) -> None:
    observer = probing(requests_per_sec=2)
    what = looked(observer, record(), Phase.BEFORE, BEGIN_MS - 1000)
    service.let_go.clear()
    timer = threading.Timer(10, service.let_go.set)  # far above what a busy machine adds to the baseline
    timer.start()
    what = looked(observer, what, Phase.AFTER, END_MS)
    timer.join()
    assert Seen.of(what.seen).last.errors == 0
    assert not observer.settled(what, END_MS + 1000)


def test_recovery_begins_once_the_fault_is_surely_gone(
    probing: Callable[..., ProbeObserver], service: Service
) -> None:
    observer = probing(recovery_timeout_sec=5)
    late = record(takes_effect_ms=2000)  # in force from BEGIN_MS + 2000 until END_MS + 2000
    assert looked(observer, late, Phase.AFTER, END_MS + 2000).seen == ""
    assert not observer.settled(late, END_MS + 8999)
    assert observer.settled(late, END_MS + 9000)
    assert looked(observer, late, Phase.AFTER, END_MS + 4000).seen
    assert len(service.calls) == 20


def test_it_sends_what_the_settings_say(probing: Callable[..., ProbeObserver], service: Service) -> None:
    observer = probing(
        headers={"Authorization": "Bearer pa55", "Content-Type": "text/plain"},
        expected_statuses=[201],
        apis={"/users/{id}": {"method": "POST", "body": "hällo", "path": "/users/42?full=1"}},
    )
    service.statuses["/users/42?full=1"] = [201]
    what = looked(observer, record(api="/users/{id}"), Phase.BEFORE, BEGIN_MS)
    assert Seen.of(what.seen).before.errors == 0
    call = service.calls[0]
    assert (call.method, call.path, call.body) == ("POST", "/users/42?full=1", "hällo".encode())
    assert (call.headers["authorization"], call.headers["content-type"]) == ("Bearer pa55", "text/plain")


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE"])
def test_a_connection_is_kept_from_request_to_request(
    probing: Callable[..., ProbeObserver], service: Service, method: str
) -> None:
    if method == "HEAD":
        service.content = b""
    looked(probing(method=method, requests_per_sec=4), record(), Phase.BEFORE, BEGIN_MS)
    assert [call.method for call in service.calls] == [method] * 4
    assert len(service.peers) == 1


def test_no_secret_is_in_errors_logs_or_what_was_seen(
    probing: Callable[..., ProbeObserver], service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    observer = probing(headers={"X-Key": "pa55"}, body="pa55", method="POST")
    what = whole(observer, service)
    service.statuses[API] = [401]
    with pytest.raises(FaultUnobservedError) as caught:
        observer.sample(record(), Phase.BEFORE, BEGIN_MS, PATIENT_S)
    assert service.calls[0].headers["x-key"] == "pa55"
    shown = [caplog.text, repr(caught.value), Seen.of(what.seen).model_dump_json()]
    assert "pa55" not in str([*shown, observer.observation(what, END_MS, PATIENT_S)])


def test_grpc_calls_are_not_observed_by_plain_requests(probing: Callable[..., ProbeObserver]) -> None:
    plan = abort_plan(protocol="grpc", grpc_status=14, abort_http_status=None)
    with pytest.raises(InvalidPlanError, match="a probe sends no gRPC calls"):
        probing().sample(plan_record("p1", plan=plan), Phase.BEFORE, BEGIN_MS, PATIENT_S)


def test_each_request_has_the_headers_of_the_plan(
    probing: Callable[..., ProbeObserver], service: Service
) -> None:
    observer = probing(headers={"X-Test-Run": "of the settings", "X-Team": "chaos"})
    plan = abort_plan(api=API, duration_seconds=DURATION_S, headers={"x-test-run": "42"})
    observer.sample(record()._replace(plan=plan), Phase.BEFORE, BEGIN_MS, PATIENT_S)
    assert len(service.calls) == 20
    sent = {(call.headers["x-test-run"], call.headers["x-team"]) for call in service.calls}
    assert sent == {("42", "chaos")}


def test_a_service_that_is_not_configured_is_named(probing: Callable[..., ProbeObserver]) -> None:
    what = plan_record("p1", plan=abort_plan(service="Other"))
    with pytest.raises(InvalidPlanError, match=r"add \[services.Other\]"):
        probing().sample(what, Phase.BEFORE, BEGIN_MS, PATIENT_S)


def test_many_plans_may_look_at_one_service_at_once(
    probing: Callable[..., ProbeObserver], service: Service
) -> None:
    observer = probing()
    texts: list[str] = []
    looks = [
        threading.Thread(
            target=lambda: texts.append(observer.sample(record(), Phase.BEFORE, BEGIN_MS, PATIENT_S))
        )
        for _ in range(8)
    ]
    for look in looks:
        look.start()
    for look in looks:
        look.join()
    assert [Seen.of(text).before.requests for text in texts] == [20] * 8
    assert len(service.calls) == 160
