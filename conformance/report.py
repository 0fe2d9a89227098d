"""What a run has found, for people, for programs and for CI servers."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from dispatcher.printable import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Finding", "Report", "Verdict"]


class Verdict(StrEnum):
    """What a case has shown."""

    OK = "ok"
    WITHOUT = "without"
    """The Executor does without this extension, as it may."""

    VIOLATED = "violated"


@dataclass(frozen=True, slots=True)
class Finding:
    """What came of one case."""

    case: str
    verdict: Verdict
    expected: str
    got: str
    seconds: float = 0.0

    def __str__(self) -> str:
        return f"{self.verdict:<9} {self.case}: expected {self.expected}; got {self.got}"


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of a run."""

    executor: str
    """Its URL."""

    idempotent_apply: bool
    """What to configure: whether an apply may be repeated under its key."""

    stops_faults: bool
    """Whether a fault can be ended before its time."""

    lists_faults: bool
    """Whether it lists the faults that it has."""

    keeps_not_after: bool
    """Whether an apply that comes too late begins nothing."""

    findings: Sequence[Finding]

    @property
    def violated(self) -> bool:
        """Whether the contract is broken anywhere."""
        return any(each.verdict is Verdict.VIOLATED for each in self.findings)

    def summary(self) -> str:
        """The numbers in a line."""
        counts = Counter(each.verdict for each in self.findings)
        numbers = " ".join(f"{verdict}={counts[verdict]}" for verdict in Verdict)
        abilities = ("idempotent_apply", "stops_faults", "lists_faults", "keeps_not_after")
        kind = " ".join(f"{name}={_word(getattr(self, name))}" for name in abilities)
        return f"conformance: cases={len(self.findings)} {numbers} {kind}"

    @property
    def fields(self) -> dict[str, object]:
        """All of it, for programs."""
        fields = asdict(self)
        fields["cases"] = fields.pop("findings")
        return fields

    def as_junit(self) -> bytes:
        """All of it as JUnit XML, an extension that is not there being a test that was skipped."""
        suite = ET.Element("testsuite", name=f"conformance of {self.executor}", tests=str(len(self.findings)))
        counts = Counter(each.verdict for each in self.findings)
        suite.set("failures", str(counts[Verdict.VIOLATED]))
        suite.set("skipped", str(counts[Verdict.WITHOUT]))
        for each in self.findings:
            case = ET.SubElement(
                suite, "testcase", classname="conformance", name=each.case, time=f"{each.seconds:.3f}"
            )
            message = printable(f"expected {each.expected}; got {each.got}")
            if each.verdict is Verdict.VIOLATED:
                ET.SubElement(case, "failure", message=message)
            elif each.verdict is Verdict.WITHOUT:
                ET.SubElement(case, "skipped", message=message)
        ET.indent(suite)
        return bytes(ET.tostring(suite, encoding="utf-8", xml_declaration=True))


def _word(value: object) -> str:
    return str(value).lower()
