"""What a run has found, as JUnit XML for CI servers."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from conformance.check import Grade
from conformance.report import Result
from dispatcher.printable import printable

if TYPE_CHECKING:
    from conformance.report import Finding, Report

__all__ = ["junit"]


def junit(report: Report) -> bytes:
    """A test for each check. A recommended check that fails counts as skipped, and says what was seen."""
    suite = ET.Element("testsuite", name=f"conformance of {report.executor}", tests=str(len(report.findings)))
    failures = report.count(Result.FAILED, Grade.REQUIRED)
    skipped = report.count(Result.SKIPPED) + report.count(Result.FAILED, Grade.RECOMMENDED)
    suite.set("failures", str(failures))
    suite.set("skipped", str(skipped))
    for finding in report.findings:
        test = {"classname": f"conformance.{finding.grade}", "name": finding.check}
        case = ET.SubElement(suite, "testcase", test | {"time": f"{finding.seconds:.3f}"})
        if finding.result is not Result.PASSED:
            ET.SubElement(case, _element(finding), message=printable(_message(finding)))
    ET.indent(suite)
    return bytes(ET.tostring(suite, encoding="utf-8", xml_declaration=True))


def _element(finding: Finding) -> str:
    required = finding.grade is Grade.REQUIRED
    return "failure" if finding.result is Result.FAILED and required else "skipped"


def _message(finding: Finding) -> str:
    if finding.result is Result.SKIPPED:
        return finding.seen
    return f"expected {finding.expected}; seen {finding.seen}; {finding.advice}"
