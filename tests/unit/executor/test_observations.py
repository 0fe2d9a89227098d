"""What is made of the access log."""

from __future__ import annotations

from typing import Any

from executor.observations import MAX_LINES, MAX_SPANS, Tally, parse_line

LINE: dict[str, Any] = {
    "fault_id": "f1",
    "hit": None,
    "start_time": "2030-01-01T00:00:00.000Z",
    "method": "GET",
    "path": "/a?b=c",
    "status": 200,
    "duration_us": 1500,
}


def tally(*changes: dict[str, Any]) -> Tally:
    found = Tally()
    for change in changes:
        request = parse_line(LINE | change)
        assert request is not None
        found.add(request)
    return found


def test_a_line_without_a_fault_is_nobodys() -> None:
    assert parse_line(LINE | {"fault_id": None}) is None


def test_hit_and_spared_requests_count_alike() -> None:
    seen = tally({"status": 503, "hit": "f1", "duration_us": 500}, {}, {}, {})
    assert (seen.requests, seen.errors, seen.hits) == (4, 1, 1)
    assert seen.most_frequent_status == 200
    assert seen.error_rate == 0.25
    assert seen.mean_latency_ms == 1.25


def test_a_target_without_requests_says_so() -> None:
    seen = tally()
    assert (seen.requests, seen.most_frequent_status, seen.error_rate, seen.mean_latency_ms) == (0, 0, 0, 0)
    assert seen.log_lines() == ["no request came to the target while the fault was on"]


def test_log_lines_are_bounded_and_begin_with_the_sum() -> None:
    seen = tally(*[{}] * 200, {"status": 404})
    assert seen.log_lines()[0] == "201 requests, 0 of them hit: 200 x 200, 1 x 404"
    assert len(seen.log_lines()) == 1 + MAX_LINES


def test_spans_are_bounded() -> None:
    seen = Tally()
    for number in range(100):
        seen.add_span({"name": number})
    assert len(seen.spans) == MAX_SPANS
