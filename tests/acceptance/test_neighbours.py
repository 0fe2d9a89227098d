"""What one Executor, or one plan, does to the others of a worker: nothing."""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING

import pytest
from support.eventually import eventually
from support.fleet import Fleet, FleetOfExecutors
from support.plans import abort_plan

from dispatcher import ExecutorProtocolError, ExecutorTimeoutError, FaultPlan, RawObservation

if TYPE_CHECKING:
    from collections.abc import Iterator

SHARE = 8
"""Of 16 threads, so many may wait for one of several Executors."""

FEW: dict[str, object] = {"max_retries": 1, "initial_retry_delay_sec": 0.1}
EXECUTORS: dict[str, dict[str, object]] = {
    "default": {},
    "slow": {},
    "hasty": {"max_retries": 0, "circuit_breaker_failure_threshold": 3},
    "costly": FEW | {"max_trace_bytes": 430_000, "circuit_breaker_enabled": False},
    "rude": FEW | {"max_retries": 0, "circuit_breaker_enabled": False},
}
LAST_QUESTION_S = 5.0
"""How long a plan that ends waits for the id of a fault whose apply had no answer."""

SLACK_S = 6.0


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with FleetOfExecutors(tmp_path_factory.mktemp("fleet"), EXECUTORS) as fleet:
        yield fleet


def test_an_executor_that_does_not_answer_keeps_only_its_own_plans_waiting(fleet: Fleet) -> None:
    slow, apis = fleet.stubs["slow"], [fleet.target() for _ in range(60)]
    slow.hanging.update(apis)
    batch = fleet.dispatcher.submit_many((abort_plan(api=api) for api in apis), executor="slow")
    eventually(lambda: len(slow.calls) >= SHARE)
    begun = time.monotonic()
    assert fleet.submit().result(30).error_rate == 1.0
    assert time.monotonic() - begun < 1 + SLACK_S
    assert len(slow.calls) == SHARE
    slow.let_go.set()
    assert {type(outcome) for outcome in batch.results(60)} == {RawObservation}


def test_only_plans_that_allow_too_little_time_fail(fleet: Fleet) -> None:
    stub, apis = fleet.stubs["hasty"], [fleet.target() for _ in range(6)]
    stub.hanging.update(apis)
    hasty = fleet.dispatcher.submit_many(
        (abort_plan(api=api) for api in apis), executor="hasty", timeout_sec=0.2
    )
    begun = time.monotonic()
    assert {type(outcome) for outcome in hasty.results(30)} == {ExecutorTimeoutError}
    assert time.monotonic() - begun < 1 + 0.2 + LAST_QUESTION_S + SLACK_S
    assert fleet.submit("hasty").result(30).error_rate == 1.0
    assert fleet.redis.client.hget("{dispatcher}:breaker:hasty", "state") in {None, "closed"}
    assert fleet.dispatcher.check_health("hasty")
    stub.let_go.set()


ESCAPED = b"[" * 101 + b'"' + b'\\"' * 40_000
TWICE = ("{" + ",".join(f'"a{n}":0' for n in range(40_000)) + ',"a39999":0}').encode()
LEAVES = "{" + ",".join(f'"{n:x}":0' for n in range(45_000)) + ',"z":[' + ",".join(["0"] * 40_000) + "]}"
DEEP = (
    b'{"status_code":200,"latency_ms":1,"error_rate":0,"logs":[],"trace_data":%s}'
    % ('{"a":' * 95 + LEAVES + "}" * 95).encode()
)


@pytest.mark.parametrize(
    ("call", "body"),
    [
        pytest.param("apply", ESCAPED, id="80 kB of escaped quotes"),
        pytest.param("status", TWICE, id="430 kB of names, the last one twice"),
        pytest.param("metrics", DEEP, id="480 kB, 95 deep, most of which is kept"),
    ],
)
def test_an_answer_that_costs_much_to_read_ends_its_own_plan_and_holds_up_no_other(
    fleet: Fleet, call: str, body: bytes
) -> None:
    stub, api, asked = fleet.stubs["costly"], fleet.target(), threading.Event()

    def answer(_: str) -> tuple[int, object]:
        asked.set()
        return 200, body

    stub.instead[call, api] = answer
    costly = fleet.submit("costly", api=api)
    assert asked.wait(30)
    begun = time.monotonic()
    others = fleet.dispatcher.submit_many(abort_plan(api=fleet.target()) for _ in range(20))
    assert {type(outcome) for outcome in others.results(30)} == {RawObservation}
    assert time.monotonic() - begun < 1 + 3 + SLACK_S
    if call == "metrics":
        assert costly.result(10).doubts
    else:
        with pytest.raises(ExecutorProtocolError):
            costly.result(10)


EVIL = "no\x1b[2J\x1b]0;title\x07 \x9b31m\u202e pod\r\n2026-01-01 00:00:00 ERROR forged"
WORDS: dict[str, tuple[int, object]] = {
    "rejected": (400, {"message": EVIL}),
    "broken": (500, {"error": EVIL, "message": EVIL}),
    "failed": (200, {"apply_id": "", "status": "failed", "message": EVIL}),
    "text": (502, EVIL.encode()),
    "id": (200, {"apply_id": EVIL, "status": "applied"}),
    "word": (200, {"apply_id": "x", "status": EVIL}),
}


def test_an_executors_words_can_neither_steer_a_terminal_nor_forge_a_line_of_the_log(fleet: Fleet) -> None:
    stub, ids = fleet.stubs["rude"], []
    for answer in WORDS.values():
        api = fleet.target()
        stub.instead["apply", api] = lambda _, answer=answer: answer  # type: ignore[misc]
        ids.append(fleet.submit("rude", api=api).id)
    api = fleet.target()
    stub.figures[api] = {"logs": [EVIL], "trace_data": {EVIL: EVIL}}
    observed = fleet.submit("rude", api=api)
    assert observed.result(30).logs == [EVIL]
    shown = [fleet.cli("result", *ids, observed.id), fleet.cli("result", *ids, observed.id, "--json")]
    shown += [fleet.cli("status", each) for each in ids]
    printed = "".join(done.stdout + done.stderr for done in shown) + fleet.worker.output
    assert printed.count("no\\x1b[2J") >= 2 * len(WORDS)
    assert not set(printed) & {"\x1b", "\x07", "\x9b", "\u202e", "\r"}
    assert not any(line.startswith("2026-01-01 00:00:00") for line in printed.splitlines())


@pytest.mark.parametrize(
    ("fault_type", "sent"),
    [("delay", {"delay_ms": 2500}), ("abort", {"http_status": 503})],
)
def test_a_point_that_sets_delay_and_status_at_once_becomes_the_fault_of_its_type(
    fleet: Fleet, fault_type: str, sent: dict[str, int]
) -> None:
    point = abort_plan().model_dump(exclude_none=True) | {
        "api": fleet.target(),
        "fault_type": fault_type,
        "percentage": 50,
        "delay_seconds": 2.5,
        "abort_http_status": 503,
    }
    fleet.stub.figures[str(point["api"])] = {"faulted": 50}
    handle = fleet.dispatcher.submit(FaultPlan.from_point(point))
    assert handle.result(30).requests == 100
    assert fleet.stub.requests[handle.id]["fault_config"] == sent
    assert json.dumps(fleet.stub.requests[handle.id]["percentage"]) == "50"
