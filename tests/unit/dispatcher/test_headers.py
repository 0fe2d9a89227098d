"""Headers and protocol of a plan: what is refused, what is kept, and what its Executor must be able to do."""

from __future__ import annotations

import pickle
from traceback import format_exception
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.plans import abort_plan, delay_plan

from dispatcher import Capability, FaultPlan, InvalidPlanError, Protocol
from dispatcher.headers import MAX_HEADERS, headers_of_lines
from dispatcher.ledger.record import Order

NAMES = st.from_regex(r"x-[a-z0-9!#$%&'*+.^_`|~-]{1,20}", fullmatch=True).filter(
    lambda name: not any(part in name for part in ("authori", "authentic", "auth", "cookie", "token"))
)
VALUES = st.from_regex(r"[!-~]([ -~]{0,30}[!-~])?", fullmatch=True).filter(
    lambda value: not value.lower().startswith(("basic ", "bearer ", "digest ", "negotiate "))
)
EXAMPLES = ": 1 to 16, or a name such as UNAVAILABLE"
GRPC = {"protocol": "grpc", "abort_http_status": None, "grpc_status": 14}


def problem_of(**changes: Any) -> str:
    with pytest.raises(InvalidPlanError) as caught:
        abort_plan(**changes)
    return "; ".join(" ".join(each) for each in caught.value.problems)


@pytest.mark.parametrize(
    ("headers", "problem"),
    [
        pytest.param("x-a: 1", "must be a mapping of names to values", id="a text"),
        pytest.param([("x-a", "1")], "must be a mapping of names to values", id="a list of pairs"),
        pytest.param({}, "must name a header: leave the field out to hit all requests", id="none"),
        pytest.param({f"x-{n}": "1" for n in range(9)}, "must be at most 8, not 9", id="too many"),
        pytest.param({"X-Test-Run": "1"}, "in lower case: 'x-test-run', not 'X-Test-Run'", id="upper case"),
        pytest.param({":path": "/a"}, "must not have pseudo headers", id="a pseudo header"),
        pytest.param({"a b": "1"}, "must have names as in RFC 9110", id="a space in a name"),
        pytest.param({"": "1"}, "must have names as in RFC 9110", id="an empty name"),
        pytest.param({"x-a": "1", "b: c": "2"}, "64 long, and name 2 is none", id="a whole line as name"),
        pytest.param({"x" * 65: "1"}, "at most 64 long", id="a long name"),
        pytest.param({7: "1"}, "must have names that are text", id="a number as name"),
        pytest.param({"host": "shop"}, "which belongs to the connection", id="the host"),
        pytest.param({"content-length": "0"}, "which belongs to the connection", id="a length"),
        pytest.param({"x-a": 42}, "put that of 'x-a' in quotes", id="a number as value"),
        pytest.param({"x-a": ""}, "must have values of printable ASCII", id="an empty value"),
        pytest.param({"x-a": " 1"}, "no space at either end", id="a space before a value"),
        pytest.param({"x-a": "a\nb: c"}, "must have values of printable ASCII", id="a second line"),
        pytest.param({"x-a": "x" * 257}, "1 to 256 characters", id="a long value"),
    ],
)
def test_headers_that_no_request_should_be_matched_by_are_refused(headers: Any, problem: str) -> None:
    assert problem_of(headers=headers).startswith("headers ")
    assert problem in problem_of(headers=headers)


@pytest.mark.parametrize(
    "name",
    [
        "authorization",
        "proxy-authorization",
        "cookie",
        "set-cookie",
        "x-api-key",
        "x-auth-user",
        "x-csrf-token",
        "x-amz-security-token",
        "x-password",
        "client-secret",
        "x-session",
    ],
)
def test_a_header_whose_value_is_a_secret_is_refused_without_a_word_of_it(name: str) -> None:
    problem = problem_of(headers={name: "pa55word"})
    assert "its value may be a secret" in problem
    assert "pa55word" not in problem


@pytest.mark.parametrize("value", ["Bearer pa55word", "basic pa55word", "Digest pa55word"])
def test_credentials_are_refused_under_any_name(value: str) -> None:
    problem = problem_of(headers={"x-user": value})
    assert "credentials" in problem
    assert "pa55word" not in problem


@pytest.mark.parametrize(
    "headers", [{"authorization": "pa55word"}, {"x-user": ["pa55word"]}, {"x-user": "pa55word\n"}, "pa55word"]
)
def test_no_traceback_shows_the_value_of_a_header(headers: object) -> None:
    with pytest.raises(InvalidPlanError) as caught:
        abort_plan(headers=headers)
    assert "headers" in str(caught.value)
    assert "pa55word" not in "".join(format_exception(caught.value))


@given(st.dictionaries(NAMES, VALUES, min_size=1, max_size=MAX_HEADERS))
def test_what_is_sent_and_stored_is_what_was_given(headers: dict[str, str]) -> None:
    plan = abort_plan(headers=headers)
    assert plan.headers == headers
    order = Order(plan=plan, timeout_ms=1)
    assert Order.model_validate_json(order.to_json()) == order
    assert pickle.loads(pickle.dumps(plan)) == plan
    assert FaultPlan.model_validate(plan.model_dump(mode="json")) == plan


def test_the_order_of_headers_makes_no_other_plan() -> None:
    one, other = abort_plan(headers={"x-a": "1", "x-b": "2"}), abort_plan(headers={"x-b": "2", "x-a": "1"})
    assert one == other
    assert hash(one) == hash(other)
    assert Order(plan=one, timeout_ms=1).to_json() == Order(plan=other, timeout_ms=1).to_json()


def test_the_headers_of_a_plan_cannot_be_changed() -> None:
    given = {"x-a": "1"}
    plan = abort_plan(headers=given)
    given["x-a"] = "2"
    assert plan.headers == {"x-a": "1"}
    with pytest.raises(TypeError):
        plan.headers["x-a"] = "2"  # type: ignore[index]


def test_a_plan_that_asks_for_nothing_is_stored_as_it_was_before_there_were_headers() -> None:
    text = Order(plan=abort_plan(), timeout_ms=1).to_json()
    assert "headers" not in text
    assert "protocol" not in text
    assert "grpc" not in text


def test_the_text_of_a_plan_says_whom_it_hits() -> None:
    shown = str(abort_plan(headers={"x-test-run": "42"}, percentage=30))
    assert shown == "abort 503, 30 % of PaymentService /api/v1/payment/process with x-test-run: 42, 1 s"
    assert str(abort_plan(**GRPC)).startswith("abort gRPC UNAVAILABLE, 100 % of ")


def test_more_headers_narrow_a_plan_and_another_value_is_refused() -> None:
    plan = abort_plan(headers={"x-a": "1"})
    assert plan.with_headers({"x-b": "2", "x-a": "1"}).headers == {"x-a": "1", "x-b": "2"}
    assert plan.with_headers(None) == plan
    with pytest.raises(InvalidPlanError, match="headers has another value of x-a already"):
        plan.with_headers({"x-a": "2"})


@pytest.mark.parametrize(
    ("lines", "headers"),
    [
        ([], None),
        (["x-test-run: 42"], {"x-test-run": "42"}),
        (["x-test-run:42", "x-at: 12:30 "], {"x-test-run": "42", "x-at": "12:30"}),
    ],
    ids=["none", "one", "two"],
)
def test_headers_may_be_written_as_in_a_request(lines: list[str], headers: dict[str, str] | None) -> None:
    assert headers_of_lines(lines) == headers


@pytest.mark.parametrize("lines", [["x-a"], ["x-a: 1", "x-a: 2"], ["cookie: pa55"], ["X-A: 1"]])
def test_lines_that_are_not_headers_are_refused(lines: list[str]) -> None:
    with pytest.raises(ValueError, match="must") as caught:
        headers_of_lines(lines)
    assert "pa55" not in str(caught.value)


@pytest.mark.parametrize(("given", "number"), [(14, 14), ("UNAVAILABLE", 14), ("CANCELLED", 1), (16, 16)])
def test_a_grpc_status_is_a_number_or_a_name(given: object, number: int) -> None:
    plan = abort_plan(**(GRPC | {"grpc_status": given}))
    assert (plan.grpc_status, plan.protocol) == (number, Protocol.GRPC)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"grpc_status": 0}, "grpc_status must be greater than or equal to 1"),
        ({"grpc_status": 17}, "grpc_status must be less than or equal to 16"),
        ({"grpc_status": "OK"}, "grpc_status must be greater than or equal to 1"),
        ({"grpc_status": "NONSENSE"}, "grpc_status must be a gRPC status"),
        ({"grpc_status": True}, "grpc_status must be a gRPC status"),
        ({"grpc_status": None}, "grpc_status is required for abort faults of protocol grpc"),
        ({"abort_http_status": 503}, "abort_http_status belongs to abort faults of protocol http only"),
        (
            {"protocol": "http", "abort_http_status": 503},
            "grpc_status belongs to abort faults of protocol grpc only",
        ),
        ({"protocol": "http2"}, "protocol must be 'http' or 'grpc'"),
    ],
)
def test_statuses_belong_to_their_protocol(changes: dict[str, Any], problem: str) -> None:
    assert problem_of(**(GRPC | changes)).removesuffix(EXAMPLES) == problem


def test_a_delay_may_hit_grpc_calls_only() -> None:
    assert delay_plan(protocol="grpc").needs == (Capability.GRPC_STATUS,)
    with pytest.raises(InvalidPlanError, match="grpc_status belongs to abort faults of protocol grpc only"):
        delay_plan(protocol="grpc", grpc_status=14)


def test_a_plan_says_what_its_executor_must_be_able_to_do() -> None:
    assert abort_plan().needs == ()
    assert abort_plan(headers={"x-a": "1"}).needs == (Capability.HEADERS,)
    assert abort_plan(headers={"x-a": "1"}, **GRPC).needs == (Capability.HEADERS, Capability.GRPC_STATUS)


@pytest.mark.parametrize("line", ["authorization: Bearer pa55", ":authority pa55", "cookie=pa55 "])
def test_no_problem_shows_a_secret_that_is_part_of_a_name(line: str) -> None:
    assert "pa55" not in problem_of(headers={line: "1"})


@pytest.mark.parametrize("headers", ["x-a: 1", ["x-a"], 7])
def test_headers_that_are_added_must_be_a_mapping(headers: Any) -> None:
    with pytest.raises(InvalidPlanError, match="headers must be a mapping of names to values"):
        abort_plan().with_headers(headers)
