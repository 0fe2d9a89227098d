"""What an Executor can do beyond the basics (contract 1.3), if its health lists it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from conformance.check import Checks, Grade
from conformance.checks.basics import each_fault_has_an_id_of_its_own
from conformance.checks.hits import LEAST_HIT, an_abort_hits_the_traffic
from conformance.checks.stops import a_stopped_fault_has_metrics
from conformance.checks.truth import metrics_count_requests
from conformance.errors import SkippedError
from conformance.reading import held, loose_fields, read_as, shown, with_status
from conformance.stories import settled_metrics
from conformance.traffic_stories import ABORT_STATUS, SENT, during_a_fault
from workers.drivers.fault_answers import MetricsAnswer

if TYPE_CHECKING:
    from conformance.subject import Subject

__all__ = ["CAPABILITIES"]

BAD_REQUEST = 400
HEADERS = {"x-conformance": "1"}
OTHER_HEADERS = {"x-conformance": "2"}
GRPC: dict[str, Any] = {"protocol": "grpc", "fault_config": {"grpc_status": 14}}

CAPABILITIES = Checks()
required = Grade.REQUIRED


@CAPABILITIES.add(
    required,
    "capabilities in GET /v1/health, a list of texts",
    "List texts such as headers, or leave the field out: plans that need one are refused without it",
)
def capabilities_are_a_list_of_names(subject: Subject) -> str:
    answer = subject.api.call("GET", "/v1/health")
    names = (loose_fields(answer) or {}).get("capabilities")
    if names is None:
        raise SkippedError("the health lists no capabilities")
    return held(isinstance(names, list) and all(isinstance(each, str) for each in names), shown(answer))


@CAPABILITIES.add(
    required,
    f"{ABORT_STATUS} for at least {LEAST_HIT} of {SENT} requests with its headers, and for none without",
    "Match each header of the apply with its whole value, or list no headers: real users could be hit",
    capabilities_are_a_list_of_names,
    an_abort_hits_the_traffic,
)
def a_fault_with_headers_hits_only_requests_with_them(subject: Subject) -> str:
    _needs(subject, "headers")
    _, met = during_a_fault(subject, sent_with=HEADERS, headers=HEADERS)
    _, without = during_a_fault(subject, headers=HEADERS)
    _, others = during_a_fault(subject, sent_with=OTHER_HEADERS, headers=HEADERS)
    hits = [[each.status for each in each_of].count(ABORT_STATUS) for each_of in (met, without, others)]
    seen = f"{hits[0]} with its headers, {hits[1]} without, {hits[2]} with another value"
    return held(hits[0] >= LEAST_HIT and hits[1:] == [0, 0], seen)


@CAPABILITIES.add(
    required,
    f"{SENT} requests with its headers, and none without",
    "Count only requests with the headers of the apply: others are not part of the experiment",
    a_fault_with_headers_hits_only_requests_with_them,
    metrics_count_requests,
    a_stopped_fault_has_metrics,
)
def only_requests_with_its_headers_count(subject: Subject) -> str:
    with_them, _ = during_a_fault(subject, sent_with=HEADERS, headers=HEADERS)
    without, _ = during_a_fault(subject, headers=HEADERS)
    counts = [
        read_as(MetricsAnswer, settled_metrics(subject, each)).requests for each in (with_them, without)
    ]
    return held(counts == [SENT, 0], f"{counts[0]} with its headers, {counts[1]} without")


@CAPABILITIES.add(
    required,
    "an apply_id, status applied",
    "Accept protocol grpc with grpc_status in fault_config, or list no grpc_status",
    capabilities_are_a_list_of_names,
    each_fault_has_an_id_of_its_own,
)
def an_abort_with_a_grpc_status_is_applied(subject: Subject) -> str:
    _needs(subject, "grpc_status")
    return subject.applied(subject.body(**GRPC))


@CAPABILITIES.add(
    required,
    "400 to statuses 0 and 17, and to protocol grpc with http_status",
    "Accept grpc_status from 1 to 16, for aborts of protocol grpc only",
    an_abort_with_a_grpc_status_is_applied,
)
def a_wrong_grpc_status_is_refused(subject: Subject) -> str:
    configs = [{"grpc_status": 0}, {"grpc_status": 17}, {"http_status": 503}]
    bodies = [subject.body(**GRPC | {"fault_config": config}) for config in configs]
    return ", ".join(with_status(subject.apply(body), BAD_REQUEST) for body in bodies)


@CAPABILITIES.add(
    required,
    f"no response with {ABORT_STATUS}, and no request that is counted",
    "Hit and count only gRPC calls with a fault of protocol grpc",
    an_abort_with_a_grpc_status_is_applied,
    an_abort_hits_the_traffic,
    metrics_count_requests,
    a_stopped_fault_has_metrics,
)
def plain_requests_meet_no_grpc_fault(subject: Subject) -> str:
    apply_id, responses = during_a_fault(subject, **GRPC)
    ordinary = subject.needed_traffic().send().status
    changed = [each.status for each in responses if each.status != ordinary]
    counted = read_as(MetricsAnswer, settled_metrics(subject, apply_id)).requests
    return held(not changed and counted == 0, f"{len(changed)} of {SENT} hit, {counted} counted")


def _needs(subject: Subject, capability: str) -> None:
    listed = (loose_fields(subject.api.call("GET", "/v1/health")) or {}).get("capabilities") or ()
    if capability not in listed:
        raise SkippedError(f"the health lists no capability {capability}")
