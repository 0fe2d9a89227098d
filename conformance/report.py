"""What a run has found, as values and for programs."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from conformance.check import Grade

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Finding", "Report", "Result"]


class Result(StrEnum):
    """What a check has shown."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"
    """It could not be made."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found by one check."""

    check: str
    """Its sentence."""

    grade: Grade
    result: Result
    expected: str
    seen: str
    """What was seen, or why the check was skipped."""

    advice: str
    """What to do if it has failed."""

    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of a run."""

    executor: str
    """Its URL."""

    abilities: Mapping[str, bool]
    """What to configure: whether an apply may be repeated under its key, for example."""

    findings: Sequence[Finding]

    @property
    def conforms(self) -> bool:
        """Whether no required check has failed."""
        return self.count(Result.FAILED, Grade.REQUIRED) == 0

    def count(self, result: Result, grade: Grade | None = None) -> int:
        """How many checks have this result, of this grade or of both."""
        return sum(each.result is result and grade in {None, each.grade} for each in self.findings)

    @property
    def fields(self) -> dict[str, object]:
        """All of it, for programs."""
        return {
            "executor": self.executor,
            "conforms": self.conforms,
            **self.abilities,
            "checks": [asdict(each) for each in self.findings],
        }

    def summary(self) -> str:
        """The numbers in a line."""
        counts = Counter(each.result for each in self.findings)
        numbers = " ".join(f"{result}={counts[result]}" for result in Result)
        failed = self.count(Result.FAILED, Grade.REQUIRED)
        able = " ".join(f"{name}={str(value).lower()}" for name, value in self.abilities.items())
        return f"conformance: checks={len(self.findings)} {numbers} required_failed={failed} {able}"
