"""Policies of the existing Executor: how a plan becomes one, and how an echo differs from what was sent."""

from __future__ import annotations

import hashlib
import re
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from dispatcher.errors import InvalidPlanError
from dispatcher.ledger.reach import Reach
from dispatcher.models import FaultPlan, FaultType
from workers.drivers.options import DriverOptions

if TYPE_CHECKING:
    from pydantic import JsonValue

__all__ = [
    "PREFIX",
    "PathMatch",
    "PolicyOptions",
    "difference",
    "path_pattern",
    "plan_id_of",
    "policy_body",
    "policy_name",
    "reach_of",
]

PREFIX = "plan-"
"""All policies of this dispatcher begin with it, so that none is shadowed by a path such as `/status`."""

SAFE_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,50}")
HASH = re.compile(r"[0-9a-f]{40}")
TEMPLATE = re.compile(r"\{[^{}/]+\}")
SEGMENT = "[^/?]+"
BELOW = "(/[^?]*)?"
QUERY = r"(\?.*)?"
LONGEST_EXCERPT = 60

HeaderName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}$")]
HeaderValue = Annotated[str, StringConstraints(pattern=r"^[ -~]{1,1000}$")]
HeaderMatch = Annotated[
    dict[Literal["exact", "prefix", "regex"], HeaderValue], Field(min_length=1, max_length=1)
]
Namespace = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")]


class PathMatch(StrEnum):
    """Which paths a plan's `api` means. A query may follow in each case."""

    TEMPLATE = "template"
    """`{name}` is any one segment, or part of one. All else is meant as it is."""

    EXACT = "exact"
    """Exactly this path, braces included."""

    PREFIX = "prefix"
    """As `template`, and every path below it: `/q` and `/q/1`, but not `/qq`."""


class PolicyOptions(DriverOptions):
    """`driver_options` of the driver `policy_api`."""

    namespace: Namespace | None = None
    """Kubernetes namespace of the workloads that are hit. None: those of all namespaces."""

    selector: Literal["service", "*", "none"] = "service"
    """Whose requests are hit: the plan's service, any (`*`), or no selector at all.

    An Envoy without Istio metadata knows no service, and applies the last two only.
    """

    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] | None = None
    """HTTP method of the requests that are hit. None: all methods."""

    headers: dict[HeaderName, HeaderValue | HeaderMatch] = Field(default_factory=dict)
    """Headers that a request must have to be hit: each name with its value, or with one of `exact`, `prefix`
    and `regex`."""

    path_match: Annotated[PathMatch, Field(strict=False)] = PathMatch.TEMPLATE
    """Which paths the `api` of a plan means."""

    @model_validator(mode="after")
    def _a_namespace_has_a_selector(self) -> Self:
        if self.namespace is not None and self.selector == "none":
            raise ValueError("namespace needs a selector: set selector to service or *")
        return self


def reach_of(options: PolicyOptions) -> Reach:
    """Which requests policies with these options hit."""
    return Reach(
        options.path_match.value,
        any_service=options.selector != "service",
        namespace=options.namespace,
        method=options.method,
    )


def policy_name(plan_id: str) -> str:
    """A name that can be part of a path, for every plan id: itself, or a hash if it is unusual."""
    usual = SAFE_ID.fullmatch(plan_id)
    return PREFIX + (plan_id if usual else hashlib.sha256(plan_id.encode()).hexdigest()[:40])


def plan_id_of(name: str) -> str | None:
    """The plan id that `policy_name` made this name of. None if the name may hold a hash instead."""
    plan_id = name.removeprefix(PREFIX)
    if HASH.fullmatch(plan_id) or policy_name(plan_id) != name:
        return None
    return plan_id


def policy_body(plan: FaultPlan, name: str, options: PolicyOptions) -> dict[str, Any]:
    """The plan as a policy, in the whole numbers that the API asks for.

    Raises `InvalidPlanError` for a header that the plan and the options match differently.
    """
    fault: dict[str, Any] = {"percentage": plan.percentage, "duration_seconds": plan.duration_seconds}
    if plan.start_delay_ms:
        fault["start_delay_ms"] = plan.start_delay_ms
    if plan.fault_type is FaultType.DELAY and plan.delay_seconds is not None:
        fault["delay"] = {"fixed_delay_ms": round(plan.delay_seconds * 1000)}
    if plan.fault_type is FaultType.ABORT and plan.abort_http_status is not None:
        fault["abort"] = {"httpStatus": plan.abort_http_status}
    rule = {"match": _match(plan, options), "fault": fault}
    spec = _selector(plan.service, options) | {"rules": [rule]}
    return {"metadata": {"name": name, "version": "v1"}, "spec": spec}


def path_pattern(api: str, path_match: PathMatch) -> str:
    """The regular expression (RE2) that the paths, with their queries, must match from end to end."""
    if path_match is PathMatch.EXACT:
        return f"^{re.escape(api)}{QUERY}$"
    base = api.rstrip("/") if path_match is PathMatch.PREFIX else api
    literals = [re.escape(part) for part in TEMPLATE.split(base)]
    below = BELOW if path_match is PathMatch.PREFIX else ""
    return f"^{SEGMENT.join(literals)}{below}{QUERY}$"


def difference(sent: JsonValue, echo: JsonValue, where: str = "") -> str | None:
    """The first field in which the echo of a policy differs, and how. None if it means the same.

    Numbers are equal by value. What a server adds is equal if it is empty, or outside of `spec`: it neither
    narrows nor widens what is hit.
    """
    if isinstance(sent, dict) and isinstance(echo, dict):
        return _difference_of_objects(sent, echo, where)
    if isinstance(sent, list) and isinstance(echo, list):
        if len(sent) != len(echo):
            return f"{where} has {len(echo)} items, not {len(sent)}"
        pairs = enumerate(zip(sent, echo, strict=True))
        found = (difference(one, other, f"{where}[{number}]") for number, (one, other) in pairs)
        return next(filter(None, found), None)
    if sent == echo and isinstance(sent, bool) == isinstance(echo, bool):
        return None
    return f"{where or 'it'} is {_shown(echo)}, not {_shown(sent)}"


def _difference_of_objects(sent: dict[str, JsonValue], echo: dict[str, JsonValue], where: str) -> str | None:
    prefix = f"{where}." if where else ""
    for name, value in sent.items():
        if name not in echo:
            return f"{prefix}{name} is missing"
        if (found := difference(value, echo[name], prefix + name)) is not None:
            return found
    if not where.startswith("spec"):
        return None
    added = (name for name, value in echo.items() if name not in sent and not _empty(value, where))
    return next((f"{prefix}{name} is {_shown(echo[name])}, and was not sent" for name in added), None)


def _empty(value: JsonValue, where: str) -> bool:
    """Whether a field that a server adds changes nothing. In a selector, `*` is any."""
    if isinstance(value, dict):
        return all(_empty(each, where) for each in value.values())
    return not value or (value == "*" and where == "spec.selector")


def _shown(value: JsonValue) -> str:
    shown = repr(value)
    return shown if len(shown) <= LONGEST_EXCERPT else f"{shown[:LONGEST_EXCERPT]}..."


def _selector(service: str, options: PolicyOptions) -> dict[str, Any]:
    if options.selector == "none":
        return {}
    selector = {"service": service if options.selector == "service" else options.selector}
    if options.namespace is not None:
        selector["namespace"] = options.namespace
    return {"selector": selector}


def _match(plan: FaultPlan, options: PolicyOptions) -> dict[str, Any]:
    match: dict[str, Any] = {"path": {"regex": path_pattern(plan.api, options.path_match)}}
    if options.method is not None:
        match["method"] = {"exact": options.method}
    headers = _headers(plan, options)
    if headers:
        match["headers"] = [{"name": name, **how} for name, how in headers.items()]
    return match


def _headers(plan: FaultPlan, options: PolicyOptions) -> dict[str, dict[str, str]]:
    """How each header must match: those of the options, then those of the plan."""
    headers = {
        name: {"exact": value} if isinstance(value, str) else {str(how): text for how, text in value.items()}
        for name, value in options.headers.items()
    }
    known = {name.lower(): how for name, how in headers.items()}
    for name, value in (plan.headers or {}).items():
        if known.get(name, {"exact": value}) != {"exact": value}:
            problem = f"has {name}, which the driver_options of this Executor match in another way"
            raise InvalidPlanError(f"invalid plan: headers {problem}", [["headers", problem]])
        if name not in known:
            headers[name] = {"exact": value}
    return headers
