"""Feeds the parsers of answers with anything that is not an answer: `make fuzz`.

Each input must come out as a value of the contract, or as one of the typed errors. Either must pass
the result backend unchanged. Inputs are made by hypothesis: JSON of every shape, good answers with
something changed, bytes of every kind; a tenth of them goes over a real connection, status line and headers
included.
"""

from __future__ import annotations

import argparse
import json
import sys
import traceback
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from support.fuzz_server import FuzzServer
from support.plans import abort_plan

from dispatcher import ExecutorClientConfig, ExecutorClientError, RawObservation, Settings, stored_errors
from dispatcher.ledger.record import PlanRecord
from dispatcher.settings.executors import PrometheusSettings
from dispatcher.tasks.app import make_celery
from dispatcher.tasks.results import ResultCodec
from workers.drivers.answers import Answer
from workers.drivers.base import FaultStatus, ListedFault, StopOutcome
from workers.drivers.faults_api import FaultsApiDriver
from workers.drivers.policies import PolicyOptions, policy_body
from workers.drivers.policy_api import PolicyApiDriver
from workers.drivers.transport import HttpTransport
from workers.observers.prometheus import PrometheusObserver

if TYPE_CHECKING:
    from collections.abc import Callable

ON_THE_WIRE = 0.1
PLAN = abort_plan()
SOON = datetime(2100, 1, 1, tzinfo=UTC)
CODEC = ResultCodec(make_celery(Settings()))
RECORD = PlanRecord("p1", PLAN, "default", timeout_ms=1, submitted_ms=1, due_ms=1).applied("f1", 1)

GOOD: dict[str, Any] = {
    "faults.apply": {"apply_id": "f1", "status": "applied", "message": ""},
    "faults.status": {"apply_id": "f1", "status": "completed", "start_time": "2026-01-01T00:00:00Z"},
    "faults.metrics": {
        "apply_id": "f1",
        "status_code": 503,
        "latency_ms": 1.5,
        "error_rate": 0.5,
        "trace_data": {"resourceSpans": [{"scopeSpans": [{"spans": [{"spanId": "1"}]}]}]},
        "logs": ["a line"],
        "success_count": 1,
        "error_count": 1,
        "requests": 2,
        "faulted": 1,
        "unanswered": 0,
        "latency_p50_ms": 1.0,
        "latency_p95_ms": 2.0,
        "start_time": "2026-01-01T00:00:00Z",
        "end_time": "2026-01-01T00:00:01Z",
    },
    "faults.faults": {"faults": [{"apply_id": "f1", "key": "p1"}]},
    "faults.stop": {"apply_id": "f1", "status": "completed"},
    "faults.health": {"status": "healthy"},
    "policy.apply": policy_body(PLAN, "plan-p1", PolicyOptions()),
    "policy.status": {"metadata": {"name": "plan-p1"}, "spec": {}},
    "policy.faults": {"policies": [{"metadata": {"name": "plan-p1"}}]},
    "policy.stop": {"error": "not_found", "details": {"resource": "policy"}},
    "prometheus": {"data": {"result": [{"metric": {"code": "503"}, "value": [1.0, "0.5"]}]}},
}


@dataclass
class Canned(HttpTransport):
    """Gives the same answer to every call."""

    status: int = 200
    body: bytes = b""
    longest_call_s: float = 1.0

    def call(self, method: str, path: str, *args: object, **options: object) -> Answer:
        return Answer(f"{method} http://executor{path}", self.status, self.body, None)


@dataclass
class Parsers:
    """Every parser of answers, behind one name each."""

    transport: HttpTransport
    calls: dict[str, Callable[[], object]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        config = ExecutorClientConfig(base_url="http://127.0.0.1:1", max_trace_bytes=200, max_log_bytes=100)
        faults, policy = FaultsApiDriver(config, 1), PolicyApiDriver(config, 1)
        queries = {"error_rate_query": "a", "latency_query": "b", "status_query": "c"}
        asked = {"kind": "prometheus", "base_url": "http://127.0.0.1:1", **queries}
        observer = PrometheusObserver(PrometheusSettings.model_validate(asked), 1)
        for each in (faults, policy, observer):
            each._transport = self.transport
        self.calls = {
            "faults.apply": lambda: faults.apply(PLAN, "p1", 1, SOON),
            "faults.status": lambda: faults.status("f1", 1),
            "faults.metrics": lambda: faults.metrics("f1", 1),
            "faults.faults": lambda: faults.faults(1),
            "faults.stop": lambda: faults.stop("f1"),
            "faults.health": lambda: faults.health(1),
            "policy.apply": lambda: policy.apply(PLAN, "p1", 1, SOON),
            "policy.status": lambda: policy.status("plan-p1", 1),
            "policy.faults": lambda: policy.faults(1),
            "policy.stop": lambda: policy.stop("plan-p1"),
            "prometheus": lambda: observer.observation(RECORD, 1, 1.0),
        }


NAMES = st.text(max_size=5) | st.sampled_from(["apply_id", "status", "data"])
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=()))  # half characters too
    | st.sampled_from([float("nan"), float("inf"), "\ud800", "\x00", 2**63])
    | st.sampled_from(["applied", "completed", "failed", "f1", "plan-p1", "not_found", "..", 10**400, -0.0]),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(
            st.text(max_size=5) | st.sampled_from(["apply_id", "status", "data"]), inner, max_size=5
        )
    ),
    max_leaves=12,
)


@st.composite
def changed(draw: st.DrawFn, good: dict[str, Any]) -> bytes:
    """A good answer with some of its fields replaced or taken away, mostly those that may hold anything."""
    fields = dict(good)
    free = [name for name in ("trace_data", "spec", "extra") if name in {*good, "extra"}]
    for name in draw(st.lists(st.sampled_from([*good, *free * 4]), max_size=3)):
        fields[name] = draw(JSON)
    if draw(st.integers(0, 3)) == 0:
        fields.pop(draw(st.sampled_from([*good])))
    return json.dumps(fields).encode()


@st.composite
def mangled(draw: st.DrawFn, body: bytes) -> bytes:
    """Bytes with a piece of something else in their middle, or with an end that is missing."""
    at = draw(st.integers(0, len(body)))
    upto = draw(st.integers(at, len(body)))
    return body[:at] + draw(st.binary(max_size=8)) + body[upto:]


@st.composite
def inputs(draw: st.DrawFn) -> tuple[str, int, bytes]:
    """Which parser, the answer's status, and its body."""
    call = draw(st.sampled_from([*GOOD, "faults.metrics", "faults.metrics"]))
    good = GOOD[call] or {"any": 1}
    body = draw(
        changed(good)
        | changed(good)
        | changed(good).flatmap(mangled)
        | JSON.map(lambda value: json.dumps(value).encode())
        | st.binary(max_size=200)
    )
    status = draw(st.sampled_from([200] * 8 + [201, 204, 404, 400, 500]) | st.integers(100, 999))
    return call, status, body


HEADERS = st.lists(
    st.tuples(
        st.sampled_from(["Content-Length", "Transfer-Encoding", "Retry-After", "Content-Type", "Date", "X"]),
        st.text(st.characters(codec="latin-1"), max_size=12)
        | st.sampled_from(["5", "chunked", "gzip", "Sun, 06 Nov 1994 08:49:37 GMT", "-1", "99999999999999"]),
    ),
    max_size=3,
)


@st.composite
def wire(draw: st.DrawFn) -> tuple[str, bytes]:
    """Which parser, and all that comes over the connection."""
    call, status, body = draw(inputs())
    lines = [f"HTTP/1.1 {status} So", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in draw(HEADERS)]
    whole = "\r\n".join([*lines, "", ""]).encode("latin-1") + body
    return call, draw(st.just(whole) | mangled(whole) | st.binary(max_size=100))


@dataclass
class Outcomes:
    """The outcomes of the inputs."""

    inputs: int = 0
    unexpected: int = 0
    stops: bool = False
    """Whether to raise what is unexpected, and so end."""

    kinds: Counter[str] = field(default_factory=Counter)

    def of(self, call: Callable[[], object], source: object) -> None:
        """Try one input."""
        self.inputs += 1
        try:
            try:
                self.kinds[type(check_value(call())).__name__] += 1
            except ExecutorClientError as error:
                self.kinds[type(check_error(error)).__name__] += 1
        except Exception:
            self.unexpected += 1
            print(f"unexpected: {source!r}\n{traceback.format_exc(limit=-4)}", file=sys.stderr)
            if self.stops:
                raise


def check_value(value: object) -> object:
    """Raises where the contract knows none like it, or the backend makes another one of it."""
    if isinstance(value, RawObservation):
        again = CODEC.decode("p1", CODEC.encode("p1", value))
        assert again == value, (again, value)
        assert len(value.model_dump_json()) < 2_000
    else:
        each = value if isinstance(value, list) else [value]
        good = (type(None), FaultStatus, StopOutcome, ListedFault)
        assert all(isinstance(one, good) or (isinstance(one, str) and one) for one in each), value
    return value


def check_error(error: ExecutorClientError) -> ExecutorClientError:
    """Raises where it is another one after its way through the ledger, or through the backend."""
    assert stored_errors.from_json(stored_errors.to_json(error)).args == error.args
    again = _raised(lambda: CODEC.decode("p1", CODEC.encode("p1", error)))
    assert (type(again), again.args) == (type(error), error.args), (again, error)
    assert error.message.isprintable(), error.message
    assert len(error.message) < 2_000
    return error


def _raised(call: Callable[[], object]) -> BaseException:
    try:
        call()
    except ExecutorClientError as error:
        return error
    raise AssertionError("nothing was raised")


def run(count: int, *, stops: bool = False) -> Outcomes:
    """Try so many inputs. If it `stops`, raise the first thing that is unexpected."""
    outcomes = Outcomes(stops=stops)
    canned = object.__new__(Canned)
    parsers = Parsers(canned)
    on_the_wire = round(count * ON_THE_WIRE)

    def options(examples: int) -> Any:
        checks = list(HealthCheck)
        return settings(
            max_examples=examples,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=checks,
        )

    def parse(source: tuple[str, int, bytes]) -> None:
        call, canned.status, canned.body = source
        outcomes.of(parsers.calls[call], source)

    options(count - on_the_wire)(given(inputs())(parse))()
    with FuzzServer() as server:
        config = ExecutorClientConfig(base_url=server.url, read_timeout_sec=0.05, max_response_bytes=1_000)
        connected = Parsers(HttpTransport(config, 1))

        def receive(source: tuple[str, bytes]) -> None:
            call, server.answer = source
            outcomes.of(connected.calls[call], source)

        options(on_the_wire)(given(wire())(receive))()
    return outcomes


def main() -> None:
    """Print the outcome. Exit code 1 if anything unexpected did."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--inputs", type=int, default=100_000)
    outcomes = run(parser.parse_args().inputs)
    for kind, count in outcomes.kinds.most_common():
        print(f"{count:>7} {kind}")
    print(f"fuzz: inputs={outcomes.inputs} unexpected={outcomes.unexpected}")
    sys.exit(int(outcomes.unexpected > 0))


if __name__ == "__main__":
    main()
