"""One run: every check once, and nothing left behind."""

from __future__ import annotations

from typing import TYPE_CHECKING

from conformance.checks import ABILITIES, CHECKS, nothing_is_left_behind
from conformance.errors import FailedError, SkippedError
from conformance.report import Finding, Report, Result
from dispatcher.errors import ExecutorClientError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from threading import Event

    from conformance.check import Check
    from conformance.subject import Subject

__all__ = ["run"]


def run(
    subject: Subject,
    executor: str,
    report: Callable[[Finding], None],
    interrupted: Event,
    checks: Sequence[Check] = CHECKS,
) -> Report:
    """Make these checks, or as many as there is time for before the interruption, and end what they began.

    `report` gets each finding as it comes. If it raises an error, the faults are ended nevertheless.
    """
    findings: dict[str, Finding] = {}
    try:
        for check in [*checks, nothing_is_left_behind]:
            if check is nothing_is_left_behind or not interrupted.is_set():
                findings[check.name] = _make(check, subject, findings)
                report(findings[check.name])
    except BaseException:
        subject.clean_up()
        raise
    abilities = {name: _passed(check, findings) for name, check in ABILITIES.items()}
    return Report(executor, abilities, list(findings.values()))


def _make(check: Check, subject: Subject, findings: Mapping[str, Finding]) -> Finding:
    """What is found by one check."""
    begun_s = subject.clock.steady_s()
    missing = [each.name for each in check.needs if not _passed(each, findings)]
    try:
        if missing:
            raise SkippedError(f"needs: {missing[0]}")  # noqa: TRY301 (one place makes findings)
        result, seen = Result.PASSED, check.verify(subject)
    except SkippedError as exc:
        result, seen = Result.SKIPPED, str(exc)
    except (FailedError, ExecutorClientError) as exc:
        result, seen = Result.FAILED, str(exc)
    except Exception as exc:  # noqa: BLE001 (a bug of one check must not end the others, nor leave faults)
        result, seen = Result.FAILED, f"the check broke: {type(exc).__name__}: {exc}"
    seconds = round(subject.clock.steady_s() - begun_s, 3)
    return Finding(check.name, check.grade, result, check.promise, seen, check.advice, seconds)


def _passed(check: Check, findings: Mapping[str, Finding]) -> bool:
    found = findings.get(check.name)
    return found is not None and found.result is Result.PASSED
