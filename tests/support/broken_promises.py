"""Executors that break one promise each, and the checks that must find it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from support.fake_executor import Call, FakeExecutor, Reply, listed, refusal
from support.fake_faults import PATH, Ways

from conformance.checks.invalid import CHANGES, NOT_OBJECTS
from workers.drivers.answers import parse_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Meddle = "Callable[[Call, Reply, FakeExecutor], Reply]"


@dataclass(frozen=True)
class Broken:
    """An Executor that differs from a good one in one way."""

    how: str
    """What completes "an Executor that ..."."""

    fails: frozenset[str]
    """The checks that fail, and no others do."""

    ways: Ways = field(default_factory=Ways)
    meddle: Callable[[Call, Reply, FakeExecutor], Reply] | None = None
    takes: Callable[[Any], bool] | None = None

    def executor(self) -> FakeExecutor:
        return FakeExecutor(self.ways, self.meddle, self.takes)


def broken(how: str, *fails: str, meddle: Any = None, **ways: Any) -> Broken:
    return Broken(how, frozenset(fails), Ways(**ways), meddle)


def answers(kind: str, status: int, body: Any = None, instead_of: int = 200) -> Any:
    """Another answer to calls of one kind that are answered with `instead_of`."""

    def meddle(call: Call, reply: Reply, _: FakeExecutor) -> Reply:
        if (call.kind, reply.status) != (kind, instead_of):
            return reply
        return Reply(status, {} if body is None else body)

    return meddle


def says(kind: str, when: Callable[[dict[str, Any]], bool] | None = None, **fields: Any) -> Any:
    """The same answer with other fields. `...` takes one away. `when` is given the true fields."""

    def meddle(call: Call, reply: Reply, _: FakeExecutor) -> Reply:
        if call.kind != kind or reply.status != 200 or not (when is None or when(reply.body)):
            return reply
        changed = {name: value for name, value in (reply.body | fields).items() if value is not ...}
        return replace(reply, body=changed)

    return meddle


def refuses(unwanted: Callable[[Call], bool], status: int = 400) -> Any:
    """Refuses applies that it should accept, and applies them in spite of that."""

    def meddle(call: Call, reply: Reply, _: FakeExecutor) -> Reply:
        return refusal(status, "unwanted") if call.kind == "apply" and unwanted(call) else reply

    return meddle


def over(fields: dict[str, Any]) -> bool:
    return fields.get("status") in {"completed", "failed"}


def by_itself(call: Call, executor: FakeExecutor) -> bool:
    """Whether the call is about a fault that has ended without a stop."""
    fault = executor.plane.faults.get(call.path.split("/")[3])
    if fault is None or fault.stopped or fault.error:
        return False
    return not fault.running(executor.time.steady_s())


def stopped(call: Call, executor: FakeExecutor) -> bool:
    fault = executor.plane.faults.get(call.path.split("/")[3])
    return fault is not None and fault.stopped


def repeated_stops_fail() -> Any:
    paths: list[str] = []

    def meddle(call: Call, reply: Reply, _: FakeExecutor) -> Reply:
        if call.kind != "stop":
            return reply
        paths.append(call.path)
        return refusal(500, "internal") if paths.count(call.path) > 1 else reply

    return meddle


def repeated_stops_move_the_end(call: Call, reply: Reply, executor: FakeExecutor) -> Reply:
    if call.kind == "stop" and stopped(call, executor):
        executor.plane.faults[call.path.split("/")[3]].end_s = executor.time.steady_s()
    return reply


def moved_in_the_end(call: Call, reply: Reply, executor: FakeExecutor) -> Reply:
    return replace(reply, status=302) if call.kind == "stop" and by_itself(call, executor) else reply


def loses_figures_of_stopped_faults(call: Call, reply: Reply, executor: FakeExecutor) -> Reply:
    return refusal(404, "not_found") if call.kind == "metrics" and stopped(call, executor) else reply


def lists_for_too_long(call: Call, reply: Reply, executor: FakeExecutor) -> Reply:
    if call.kind != "list" or reply.status != 200:
        return reply
    return Reply(200, {"faults": [listed(each) for each in executor.plane.faults.values()]})


def hides_keys(call: Call, reply: Reply, _: FakeExecutor) -> Reply:
    if call.kind != "list" or reply.status != 200:
        return reply
    return Reply(200, {"faults": [each | {"key": None} for each in reply.body["faults"]]})


def windows(begin_s: float, end_s: float, where: Callable[[Call, FakeExecutor], bool]) -> Any:
    """Moves start and end in the answers about faults that are over."""

    def meddle(call: Call, reply: Reply, executor: FakeExecutor) -> Reply:
        if call.kind not in {"status", "metrics"} or reply.status != 200 or reply.body["end_time"] is None:
            return reply
        if not where(call, executor):
            return reply
        fault = executor.plane.faults[call.path.split("/")[3]]
        times = {
            "start_time": executor.time.at(fault.begin_s + begin_s).isoformat(),
            "end_time": executor.time.at(fault.end_s + end_s).isoformat(),
        }
        return replace(reply, body=reply.body | times)

    return meddle


def on_the_traffic(call: Call, executor: FakeExecutor) -> bool:
    fault = executor.plane.faults[call.path.split("/")[3]]
    return fault.body["api"] == PATH and not fault.stopped


def delays_run_forever(call: Call, reply: Reply, executor: FakeExecutor) -> Reply:
    if call.kind != "status" or reply.status != 200:
        return reply
    body = executor.plane.faults[call.path.split("/")[3]].body
    delay = body["fault_type"] == "delay" and body["api"] != PATH
    return replace(reply, body=reply.body | {"status": "running"}) if delay else reply


def cannot_stop_what_it_has_restored(call: Call, reply: Reply, executor: FakeExecutor) -> Reply:
    restored = call.kind == "stop" and reply.status == 200 and reply.body["doubt"]
    return refusal(500, "internal") if restored else reply


def hides_the_status_of_the_first(call: Call, reply: Reply, executor: FakeExecutor) -> Reply:
    """Which an apply without an id of its own would have."""
    return (
        replace(reply, body=reply.body | {"apply_id": "f-1"})
        if call.kind == "apply" and reply.status == 200
        else reply
    )


def plain(call: Call, reply: Reply, _: FakeExecutor) -> Reply:
    return replace(reply, content_type="text/plain; charset=utf-8")


def closed_health(call: Call, reply: Reply, _: FakeExecutor) -> Reply:
    return (
        refusal(401, "unauthorized")
        if call.kind == "health" and "Authorization" not in call.headers
        else reply
    )


def metrics_at_any_time(call: Call, reply: Reply, _: FakeExecutor) -> Reply:
    return Reply(200, {"requests": 0}) if call.kind == "metrics" and reply.status == 409 else reply


def one_error_for_all(call: Call, reply: Reply, _: FakeExecutor) -> Reply:
    return reply if reply.status < 400 else replace(reply, body=reply.body | {"error": "error"})


def counts_more_if_there_are_headers(call: Call, reply: Reply, executor: FakeExecutor) -> Reply:
    if call.kind != "metrics" or reply.status != 200:
        return reply
    fault = executor.plane.faults[call.path.split("/")[3]]
    if "headers" not in fault.body:
        return reply
    more = {name: reply.body[name] + 7 for name in ("requests", "success_count")}
    return replace(reply, body=reply.body | more | {"error_rate": None})


def takes_applies_without_a_service(call: Call, reply: Reply, _: FakeExecutor) -> Reply:
    """Any other body is refused as it should be."""
    wrong = call.kind == "apply" and isinstance(call.body, dict) and "service" not in call.body
    return Reply(200, {"message": "ok"}) if wrong else reply


BASICS = [
    broken("names another major version", "the Executor is healthy", meddle=says("health", contract="2.0")),
    broken(
        "names no version that can be read", "the Executor is healthy", meddle=says("health", contract="one")
    ),
    broken(
        "is never healthy",
        "the Executor is healthy",
        "a body of more than 1 MB is refused",
        "the health needs no token",
        "an ended fault is known after a restart",
        "a fault that a hang met does not begin again",
        meddle=answers("health", 503),
    ),
    broken("calls an applied fault ok", "an abort is applied", meddle=says("apply", status="ok")),
    broken("gives no id", "an abort is applied", meddle=says("apply", apply_id="")),
    broken("answers with a list", "an abort is applied", meddle=answers("apply", 202, [])),
    broken(
        "knows no delays",
        "a delay is applied",
        meddle=refuses(
            lambda call: call.body.get("fault_type") == "delay" if isinstance(call.body, dict) else False
        ),
    ),
    broken(
        "knows no start delays",
        "a start delay is accepted",
        meddle=refuses(lambda call: "start_delay_ms" in str(call.body)),
    ),
    broken(
        "knows no odd percentages",
        "percentages from 0 to 100 are accepted",
        meddle=refuses(lambda call: isinstance(call.body, dict) and call.body.get("percentage") == 1, 500),
    ),
    broken(
        "fears traces",
        "a traceparent is accepted",
        meddle=refuses(lambda call: "traceparent" in call.headers, 431),
    ),
    broken(
        "gives all faults one id", "each fault has an id of its own", meddle=hides_the_status_of_the_first
    ),
    broken(
        "gives ids that fit into no path",
        "each fault has an id of its own",
        meddle=says("apply", apply_id="x" * 201),
    ),
    broken("ends faults if more than five are active", "applies at once begin a fault each", most_running=5),
    broken(
        "calls running faults active",
        "an applied fault is running",
        meddle=says("status", lambda fields: fields["status"] == "running", status="active"),
    ),
    broken(
        "names another fault in a status",
        "an applied fault is running",
        meddle=says("status", apply_id="f-other"),
    ),
    broken("never ends a fault", "a fault ends by itself", ends_faults=False),
    broken("ends faults early", "a fault ends by itself", lasts=0.5),
    broken(
        "names times without a zone",
        "an ended fault has a status",
        meddle=says("status", over, end_time="2030-01-01T00:00:00"),
    ),
    broken(
        "names no times", "an ended fault has a status", meddle=says("status", over, start_time="yesterday")
    ),
    broken("knows rates beyond 1", "an ended fault has metrics", meddle=says("metrics", error_rate=1.5)),
    broken("writes numbers as text", "an ended fault has metrics", meddle=says("metrics", status_code="200")),
    broken("leaves out traces", "an ended fault has metrics", meddle=says("metrics", trace_data=...)),
    broken(
        "counts more faults than requests", "an ended fault has metrics", meddle=says("metrics", faulted=7)
    ),
    broken(
        "names another fault in metrics", "an ended fault has metrics", meddle=says("metrics", apply_id="f-7")
    ),
    broken(
        "forgets faults that have ended",
        "an earlier fault keeps its status and metrics",
        "a stopped fault has the window until its stop",
        "a key outlives its fault",
        "an ended fault is known after a restart",
        "only requests with its headers count",
        forgets_ended=True,
    ),
    broken("never frees a target", "a target is free after its fault", frees_targets=False),
    broken("slows down with each fault", "an apply is as fast if many faults are active", slow_apply_s=0.3),
    broken("has delays that run forever", "nothing is left behind", meddle=delays_run_forever),
]

STOPS = [
    broken("knows no stops", "a fault can be stopped", meddle=answers("stop", 405)),
    broken("only says that it stops", "a stopped fault is over", stops_faults=False),
    broken("confirms no stop", "a stop is confirmed", meddle=answers("stop", 204, "")),
    broken("says that a stopped fault runs", "a stop is confirmed", meddle=says("stop", status="running")),
    broken("fails if a stop is repeated", "a stop may be repeated", meddle=repeated_stops_fail()),
    broken("moves the end at each stop", "a stop may be repeated", meddle=repeated_stops_move_the_end),
    broken(
        "fails if an unknown fault is stopped",
        "an unknown fault needs no stop",
        meddle=answers("stop", 500, instead_of=404),
    ),
    broken("stops all targets", "a stop leaves other faults alone", stops_all_targets=True),
    broken(
        "loses the figures of stopped faults",
        "a stopped fault has metrics",
        meddle=loses_figures_of_stopped_faults,
    ),
]

KEYS = [
    broken("knows no keys", "the same key is the same fault", knows_keys=False),
    broken(
        "looks keys up before it stores them",
        "applies at once under one key are one fault",
        most_uses_of_a_key=4,
    ),
    broken("compares no requests", "a key of another fault is refused", compares_keys=False),
    broken("forgets keys with their faults", "a key outlives its fault", keys_outlive_faults=False),
    broken(
        "refuses applies that are in time", "an apply before its Not-After is accepted", refuses_in_time=True
    ),
    broken("knows no Not-After", "a late apply is refused", refuses_late=False),
    broken(
        "judges the time before the key",
        "a late apply under a known key names its fault",
        late_before_keys=True,
    ),
    broken("lists no faults", "running faults are listed", meddle=answers("list", 404)),
    broken("lists nothing", "running faults are listed", meddle=answers("list", 200, {"faults": []})),
    broken("hides keys", "the list names keys", meddle=hides_keys),
    broken("lists what is over", "an ended fault is not listed", meddle=lists_for_too_long),
    broken("begins what it refuses", "a refused apply begins no fault", begins_late="with a key"),
]

TRUTH = [
    broken(
        "knows no windows",
        "a status says when its fault began and ended",
        meddle=says("status", start_time=None, end_time=None),
    ),
    broken("begins windows late", "a window is as long as its fault", meddle=windows(0.8, 0, by_itself)),
    broken(
        "shows planned ends", "a stopped fault has the window until its stop", meddle=windows(0, 59, stopped)
    ),
    broken(
        "has two windows for a fault",
        "metrics have the window of the status",
        meddle=says("metrics", start_time="2030-01-01T00:00:00Z"),
    ),
    broken("counts nothing", "metrics count requests", meddle=says("metrics", requests=...)),
    broken(
        "has figures of no request",
        "figures without requests are null",
        meddle=says("metrics", lambda fields: fields.get("requests") == 0, latency_ms=0.0, error_rate=0.0),
    ),
    broken("knows no doubt", "a status and metrics have a doubt", meddle=says("metrics", doubt=...)),
    broken(
        "doubts all", "a fault without incident has no doubt", meddle=says("status", over, doubt="perhaps")
    ),
]

REFUSALS = [
    broken(
        "knows figures of all faults",
        "an unknown fault is not found",
        meddle=answers("metrics", 500, instead_of=404),
    ),
    broken("knows all paths", "an unknown path is not found", meddle=answers("unknown", 200, instead_of=404)),
    broken(
        "refuses with a number",
        "a refusal says why",
        meddle=answers("apply", 400, {"code": 7}, instead_of=400),
    ),
    broken(
        "refuses in plain text", "a refusal says why", meddle=answers("apply", 400, "bad", instead_of=400)
    ),
    broken(
        "says that all is well instead of a refusal",
        "an apply without service is refused",
        "a refusal says why",
        meddle=takes_applies_without_a_service,
    ),
    broken("has one error for all", "a refusal names its kind", meddle=one_error_for_all),
    broken("takes a body of any size", "a body of more than 1 MB is refused", largest=10**9),
    broken("puts two faults on a target", "a second fault on a target is refused", refuses_conflicts=False),
    broken(
        "has figures of running faults", "metrics of a running fault are refused", meddle=metrics_at_any_time
    ),
    broken("takes any number of faults", "applies beyond the limit are refused", limit=10**9),
    broken(
        "fails beyond its limit",
        "applies beyond the limit are refused",
        meddle=answers("apply", 503, instead_of=429),
    ),
    broken("needs no token", "without the token no call is answered", takes_no_token=True),
    broken("takes any token", "a wrong token is refused", takes_any_token=True),
    broken("hides its health", "the health needs no token", meddle=closed_health),
    broken("moves ended faults", "no call is redirected", meddle=moved_in_the_end),
    broken("calls JSON plain text", "each body is JSON by its content type", meddle=plain),
]

HITS = [
    broken("hits no request", "an abort hits the traffic", hits=False),
    broken("takes effect late", "a fault is in force when its apply is answered", late_s=2.5),
    broken("delays half as long", "a delay holds the traffic", delays_s=0.5),
    broken("hits with 0 %", "a fault of 0 percent hits no request", hits_at_0=True),
    broken("hits other paths", "other paths are not hit", hits_other_paths=True),
    broken("hits all with any percentage", "a percentage hits its share", hits_always=True),
    broken(
        "counts what it did not hit",
        "the counts match the traffic",
        meddle=says("metrics", lambda fields: fields.get("faulted", 0) > 0, faulted=0),
    ),
    broken(
        "shows windows that are too short",
        "the window holds all that was hit",
        meddle=windows(2, 0, on_the_traffic),
    ),
    broken(
        "shows windows that are too long",
        "the window holds all that was hit",
        meddle=windows(-3, 0, on_the_traffic),
    ),
    broken("hits after the end", "a completed fault hits no request", hits_after_end=5),
    broken("hits after a stop", "a stopped fault hits no request", hits_after_stop=5),
    broken("hits for what it refuses", "a refused apply hits no request", begins_late="without a key"),
]

CAPABILITIES = [
    broken(
        "names its capabilities in a text",
        "capabilities are a list of names",
        meddle=says("health", capabilities="headers"),
    ),
    broken(
        "matches no headers",
        "a fault with headers hits only requests with them",
        matches_headers=False,
    ),
    broken(
        "counts requests without the headers of a fault",
        "only requests with its headers count",
        meddle=counts_more_if_there_are_headers,
    ),
    broken(
        "knows no gRPC",
        "an abort with a gRPC status is applied",
        meddle=refuses(lambda call: "grpc" in str(call.body)),
    ),
    Broken(
        "takes any gRPC status",
        frozenset({"a wrong gRPC status is refused"}),
        takes=lambda body: "'grpc_status': 17" in str(body),
    ),
    broken(
        "counts plain requests as gRPC calls",
        "plain requests meet no gRPC fault",
        grpc_faults_hit_all=True,
    ),
]

EVERYTHING = [
    broken("has no stop for all", "one call stops all faults", meddle=answers("stop-all", 404)),
    broken("only says that all is over", "after stop-all no fault is running", stop_all_ends=False),
    broken(
        "lists nothing of what it stopped", "stop-all lists what it stopped", meddle=answers("stop-all", 200)
    ),
]

SURVIVAL = [
    broken(
        "takes effect 20 s late",
        "a fault is in force when its apply is answered",
        "a fault ends soon if the Executor is killed",
        "a fault ends soon if the Executor hangs",
        late_s=20,
    ),
    broken(
        "has faults that outlive it", "a fault ends soon if the Executor is killed", lapses_if_killed=False
    ),
    broken(
        "takes the data plane with it", "traffic goes on without the Executor", goes_on_without_executor=False
    ),
    broken("forgets all in a restart", "an ended fault is known after a restart", keeps_state=False),
    broken(
        "cannot stop what it has restored",
        "a running fault can be stopped after a restart",
        meddle=cannot_stop_what_it_has_restored,
    ),
    broken("doubts nothing after a restart", "a fault that a restart met has a doubt", doubts_restored=False),
    broken("forgets keys in a restart", "a key is known after a restart", keeps_keys=False),
    broken(
        "has faults that outlive a hang", "a fault ends soon if the Executor hangs", lapses_if_it_hangs=False
    ),
    broken(
        "goes on with what has lapsed",
        "a fault that a hang met does not begin again",
        begins_lapsed_again=True,
    ),
]


def careless() -> Iterator[Broken]:
    """Each takes one body that it must refuse."""
    for what, text in NOT_OBJECTS.items():
        yield Broken(f"takes {what}", frozenset({f"{what} is refused"}), takes=partial(_is, _parsed(text)))
    for what, changes in CHANGES.items():
        fails = {f"{what} is refused"} | ({"a refusal says why"} if "service" in changes else set())
        yield Broken(f"takes {what}", frozenset(fails), takes=partial(_has, changes))


def _parsed(text: object) -> object:
    try:
        return parse_json(text) if isinstance(text, bytes) else text
    except ValueError:
        return text


def _is(wanted: object, body: object) -> bool:
    return body == wanted


def _has(changes: dict[str, object], body: object) -> bool:
    if not isinstance(body, dict):
        return False
    kind = changes.get("fault_type", "abort")
    same = all(body.get(name) == value for name, value in changes.items())
    return same and ("fault_type" in changes or body.get("fault_type") == kind)


BROKEN = [
    *BASICS,
    *STOPS,
    *KEYS,
    *TRUTH,
    *REFUSALS,
    *HITS,
    *CAPABILITIES,
    *EVERYTHING,
    *SURVIVAL,
    *careless(),
]
