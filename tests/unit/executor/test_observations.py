"""What is made of the access log."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from executor.observations import MAX_LINES, MAX_SPANS, Arrival, End, Mark, Tally, parse_line

ARRIVED: dict[str, Any] = {
    "kind": "DownstreamStart",
    "stream": "7-1900000000.000000001",
    "arrived_at": "1900000000.250000",
    "start_time": "2030-03-17T17:46:40.250Z",
    "fault_id": "f1",
    "chosen": True,
    "hit": None,
    "method": "GET",
    "path": "/a?b=c",
    "status": 0,
    "grpc": "0",
    "content_type": None,
    "flags": "-",
    "answered_us": None,
    "ended_ms": 0,
}
ENDED = ARRIVED | {"kind": "DownstreamEnd", "status": 200, "answered_us": 1500, "ended_ms": 1}


def arrival(stream: int = 1, *, chosen: bool = False, arrived_at: float = 0.0) -> Arrival:
    return Arrival(str(stream), "f1", chosen, arrived_at, "GET /a")


def end(stream: int = 1, status: int | None = 200, latency_ms: float = 1.0, *, faulted: bool = False) -> End:
    return End(str(stream), "f1", faulted, status, latency_ms)


def tally(*ends: End) -> Tally:
    found = Tally()
    for each in ends:
        found.begin(arrival(int(each.stream)))
        found.end(each)
    return found


def test_a_line_of_a_target_without_a_fault_is_nothing() -> None:
    assert parse_line(ARRIVED | {"fault_id": None}) is None


def test_an_arrival_says_which_fault_it_met() -> None:
    found = parse_line(ARRIVED)
    line = "2030-03-17T17:46:40.250Z GET /a?b=c"
    assert found == Arrival("7-1900000000.000000001", "f1", True, 1_900_000_000.25, line)


def test_an_answered_request_has_its_status_and_its_latency_in_microseconds() -> None:
    assert parse_line(ENDED | {"hit": "f1", "flags": "DI,FI"}) == End(ENDED["stream"], "f1", True, 200, 1.5)


def test_a_websocket_is_answered_once_it_is_open() -> None:
    opened = {"kind": "DownstreamTunnelSuccessfullyEstablished", "status": 101, "answered_us": None}
    found = parse_line(ENDED | opened | {"ended_ms": 2})
    assert found == End(ENDED["stream"], "f1", False, 101, 2.0)
    seen = Tally()
    seen.begin(Arrival(ENDED["stream"], "f1", False, 0.0, "GET /a"))
    for each in (found, parse_line(ENDED | {"status": 101, "flags": "DC", "ended_ms": 60_000})):
        assert isinstance(each, End)
        seen.end(each)
    assert (seen.requests, seen.errors, seen.latencies.mean_ms, seen.under_way) == (1, 0, 2.0, {})


def test_a_mark_has_its_number() -> None:
    assert parse_line({"mark": "/ready?mark=17"}) == Mark(17)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"status": 0, "flags": "DC"}, id="the client gave up before the answer"),
        pytest.param({"status": 0, "flags": "DI,DC"}, id="the client gave up during the delay"),
        pytest.param({"status": 200, "flags": "DC"}, id="the client gave up in the middle of the answer"),
        pytest.param({"status": 200, "flags": "UPE"}, id="the service broke off its answer"),
        pytest.param({"status": 200, "flags": "DR"}, id="an HTTP/2 client cancelled in the middle"),
        pytest.param({"status": 200, "flags": "-"}, id="an HTTP/2 client cancelled without an error"),
        pytest.param({"status": 404, "flags": "DR"}, id="an HTTP/2 client cancelled an error page"),
        pytest.param({"status": 0, "flags": "-"}, id="there was no answer"),
    ],
)
def test_requests_without_a_complete_answer_are_unanswered(change: dict[str, Any]) -> None:
    found = parse_line(ENDED | {"answered_us": None, "ended_ms": 307} | change)
    assert found == End(ENDED["stream"], "f1", False, None, 307.0)


@pytest.mark.parametrize(
    ("status", "flags"),
    [
        pytest.param(503, "UF", id="the service cannot be reached"),
        pytest.param(503, "UC", id="the service closed its connection"),
        pytest.param(504, "UT", id="the service took too long"),
        pytest.param(101, "DC", id="a websocket was closed"),
    ],
)
def test_answers_of_the_proxy_and_websockets_are_answers(status: int, flags: str) -> None:
    found = parse_line(ENDED | {"status": status, "flags": flags})
    assert isinstance(found, End)
    assert found.status == status


def test_hit_and_spared_requests_count_alike() -> None:
    seen = tally(end(1, 503, 0.5, faulted=True), *(end(number, 200, 1.5) for number in (2, 3, 4)))
    assert (seen.requests, seen.errors, seen.faulted) == (4, 1, 1)
    assert (seen.most_frequent_status, seen.error_rate, seen.latencies.mean_ms) == (200, 0.25, 1.25)


def test_unanswered_requests_are_errors_and_count_for_as_long_as_they_were_held() -> None:
    seen = tally(end(1, None, 500.0, faulted=True), end(2, 200, 100.0))
    assert (seen.requests, seen.errors, seen.unanswered) == (2, 1, 1)
    assert (seen.most_frequent_status, seen.latencies.mean_ms) == (200, 300.0)


def test_a_target_without_requests_has_no_figures() -> None:
    seen = Tally()
    assert (seen.requests, seen.errors) == (0, 0)
    assert (seen.most_frequent_status, seen.error_rate, seen.latencies.mean_ms) == (None, None, None)
    assert seen.log_lines() == ["no request came to the target while the fault was on"]


def test_a_request_that_arrived_before_the_fault_does_not_count() -> None:
    seen = Tally()
    seen.end(end())
    assert seen.requests == 0


def test_a_request_that_was_given_up_does_not_count_again_when_it_ends() -> None:
    seen = Tally()
    seen.begin(arrival(chosen=True, arrived_at=100.0))
    seen.give_up(102.5)
    seen.end(end(status=200))
    assert (seen.requests, seen.unanswered, seen.unfinished, seen.faulted) == (1, 1, 1, 1)
    assert seen.latencies.mean_ms == 2500.0


def test_log_lines_are_bounded_and_begin_with_the_sum() -> None:
    seen = tally(end(0, 404), end(1, None), *(end(number) for number in range(2, 202)))
    assert seen.log_lines()[0] == "202 requests, 0 of them hit: 200 x 200, 1 x 404, 1 unanswered"
    assert seen.log_lines()[2] == "GET /a unanswered 1.0 ms spared"
    assert len(seen.log_lines()) == 1 + MAX_LINES


def test_spans_are_bounded() -> None:
    seen = Tally()
    for number in range(100):
        seen.add_span({"name": number})
    assert len(seen.spans) == MAX_SPANS


STATUSES = st.one_of(st.none(), st.sampled_from([200, 201, 404, 503]))


@given(st.lists(st.tuples(STATUSES, st.booleans()), max_size=50), st.integers(0, 50))
def test_each_request_that_arrived_counts_once(ends: list[tuple[int | None, bool]], late: int) -> None:
    """Whether it ends before, during or after the moment at which the Executor stops waiting."""
    seen = Tally()
    for number in range(len(ends)):
        seen.begin(arrival(number))
    in_time = len(ends) - min(late, len(ends))
    for number, (status, faulted) in enumerate(ends):
        if number == in_time:
            seen.give_up(1.0)
        seen.end(end(number, status, faulted=faulted))
    answered = Counter(status for status, _ in ends[:in_time] if status is not None)
    assert seen.requests == len(ends)
    assert seen.statuses == answered
    assert seen.unanswered == len(ends) - answered.total()
    assert seen.errors == seen.unanswered + answered[404] + answered[503]
    assert not seen.under_way


GRPC = ENDED | {"content_type": "application/grpc+proto"}


@pytest.mark.parametrize(
    ("line", "grpc_status", "failed"),
    [
        pytest.param(GRPC | {"grpc": "0"}, 0, False, id="a call that succeeded"),
        pytest.param(GRPC | {"grpc": "14"}, 14, True, id="a call that failed with HTTP status 200"),
        pytest.param(ENDED | {"grpc": "2"}, None, False, id="a request that is not a gRPC call"),
        pytest.param(GRPC | {"grpc": None}, 0, False, id="a call without a gRPC status"),
    ],
)
def test_a_grpc_call_fails_by_its_own_status(
    line: dict[str, Any],
    grpc_status: int | None,
    failed: bool,  # noqa: FBT001 (a parameter of the test)
) -> None:
    found = parse_line(line)
    assert isinstance(found, End)
    assert (found.grpc_status, found.failed) == (grpc_status, failed)
    assert tally(End("1", "f1", False, 200, 1.0, grpc_status)).errors == failed


ENDS = st.builds(
    End,
    stream=st.integers(0, 5).map(str),
    fault_id=st.just("f1"),
    faulted=st.booleans(),
    status=st.sampled_from([None, 200, 404, 503]),
    latency_ms=st.floats(0, 60_000),
    grpc_status=st.sampled_from([None, 0, 14]),
)


@settings(max_examples=30)  # ddsketch takes long to read a sketch of many decades
@given(st.lists(ENDS, max_size=20), st.lists(st.integers(0, 9), max_size=5))
def test_a_tally_that_was_kept_and_read_again_is_the_same(ends: list[End], begun: list[int]) -> None:
    kept = tally(*ends)
    for stream in begun:
        kept.begin(arrival(stream))
    again = Tally.from_json(json.loads(json.dumps(kept.to_json())))
    assert again.to_json() == kept.to_json()
    assert (again.requests, again.errors, again.under_way) == (kept.requests, kept.errors, kept.under_way)
    assert again.latencies.percentile_ms(95) == pytest.approx(kept.latencies.percentile_ms(95))
