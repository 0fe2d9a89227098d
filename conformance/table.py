"""What a run has found, as a table for people that grows while the checks are made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from conformance.report import Result

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conformance.report import Finding

__all__ = ["header", "rows"]


def header() -> str:
    """The line above all rows."""
    return _row("result", "grade", "check")


def rows(finding: Finding) -> Iterator[str]:
    """The finding's row, and more below it unless it has passed."""
    yield _row(finding.result, finding.grade, finding.check)
    if finding.result is Result.FAILED:
        yield _row("", "expected", finding.expected)
        yield _row("", "seen", finding.seen)
        yield _row("", "do", finding.advice)
    elif finding.result is Result.SKIPPED:
        yield _row("", "because", finding.seen)


def _row(result: str, grade: str, text: str) -> str:
    return f"{result:<8} {grade:<12} {text}"
