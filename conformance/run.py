"""One run: every case once, and nothing left behind."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from conformance.cases import CASES, IDEMPOTENT, LISTS, REFUSES_LATE, STOPS, Case, left_behind
from conformance.report import Finding, Report, Verdict
from conformance.subject import AbsentError, ViolationError
from dispatcher.errors import ExecutorClientError

if TYPE_CHECKING:
    from collections.abc import Callable
    from threading import Event

    from conformance.subject import Subject

__all__ = ["run", "try_case"]

LAST = Case("nothing is left behind", "no fault still running", left_behind)


def run(subject: Subject, url: str, tell: Callable[[Finding], None], interrupted: Event) -> Report:
    """Try all cases, or as many as there is time for before the interruption, and end what they began.

    `tell` gets each finding as it comes.
    """
    findings: list[Finding] = []
    for case in [*CASES, LAST]:
        if case is LAST or not interrupted.is_set():
            findings.append(try_case(case, subject))
            tell(findings[-1])
    held = {each.case for each in findings if each.verdict is Verdict.OK}
    return Report(
        url,
        idempotent_apply=IDEMPOTENT in held,
        stops_faults=STOPS in held,
        lists_faults=LISTS in held,
        keeps_not_after=REFUSES_LATE in held,
        findings=findings,
    )


def try_case(case: Case, subject: Subject) -> Finding:
    """What comes of one case."""
    begun = time.monotonic()
    try:
        verdict, got = Verdict.OK, case.check(subject)
    except AbsentError as exc:
        verdict, got = Verdict.WITHOUT, str(exc)
    except (ViolationError, ExecutorClientError) as exc:
        verdict, got = Verdict.VIOLATED, str(exc)
    return Finding(case.name, verdict, case.expected, got, round(time.monotonic() - begun, 3))
