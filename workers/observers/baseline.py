"""A target whose probes fail before the fault cannot be observed. The error says what to change."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from dispatcher.errors import FaultUnobservedError
from workers.observers.tally import UNREADABLE, Tally

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dispatcher.models import FaultPlan
    from workers.observers.request import ProbeRequest
    from workers.observers.tally import Probe

__all__ = ["refuse_unfit"]

MOST_FAILURES = 0.5
"""The share of failures above which a target cannot be observed."""

UNREACHABLE = "is base_url right, and does the service run?"
ADVICE = {
    "400": "set body or headers to what the API accepts",
    "401": "set headers, such as Authorization, to what the API accepts",
    "403": "set headers, such as Authorization, to what the API accepts",
    "404": "set path to a path that exists, as /users/42 for the API /users/{id}",
    "405": "set method to one that the API accepts",
    "415": "set headers, such as Content-Type, to what the API accepts",
    "422": "set body or headers to what the API accepts",
    "429": "set requests_per_sec to a lower number",
    "broken": UNREACHABLE,
    "dns": UNREACHABLE,
    "not sent": "set concurrency to a higher number",
    "refused": UNREACHABLE,
    "timeout": "is the service overloaded? Or set request_timeout_sec to a longer time",
    "tls": "does the service's certificate fit its base_url and ca_file?",
    UNREADABLE: "a longer answer needs a larger max_response_bytes of the service",
}
OTHER = "is the service healthy? Or set expected_statuses to those of a healthy one"


def refuse_unfit(probes: Sequence[Probe], plan: FaultPlan, request: ProbeRequest) -> None:
    """Raises `FaultUnobservedError` if more than half of these requests of a baseline failed."""
    failed = [each for each in probes if not each.expected]
    if len(failed) <= MOST_FAILURES * len(probes):
        return
    most = Counter(each.outcome for each in failed).most_common(1)[0][0]
    why = next((f" ({each.why})" for each in failed if each.outcome == most and each.why), "")
    call = f"{request.method} {request.path.partition('?')[0]}"  # a query may hold a secret
    message = f"{plan.service} cannot be observed: in the baseline, before the fault, {len(failed)} of"
    message = f"{message} {len(probes)} probes with {call} failed: {Tally.of(probes)}{why}"
    section = f'[services.{plan.service}.apis."{plan.api}"]'
    raise FaultUnobservedError(
        f"{message}; {ADVICE.get(most, OTHER)} (settings of [services.{plan.service}] or {section})"
    )
