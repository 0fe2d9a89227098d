"""How the verdicts on mutants are counted."""

from __future__ import annotations

import pytest
from mutation.score import Change, Part, Reasons, entry, known_survivors, parts_of, report

RESULTS = """
    dispatcher.ledger.line.x_one__mutmut_1: killed
    dispatcher.ledger.line.x_one__mutmut_2: timeout
    workers.engine.retry.xǁRetryPolicyǁdelay_s__mutmut_1: survived
    workers.breaker.rules.x_two__mutmut_1: no tests
    workers.breaker.rules.x_two__mutmut_2: segfault
"""
CHANGE = Change("workers.engine.retry.RetryPolicy.delay_s", "a < b", "a <= b")


def part(killed: int, survived: int, unfinished: int = 0) -> Part:
    verdicts = ["killed"] * killed + ["survived"] * survived + ["not checked"] * unfinished
    return Part({f"m{number}": verdict for number, verdict in enumerate(verdicts)})


def test_a_mutant_that_hangs_or_crashes_is_killed_and_one_without_tests_survives() -> None:
    parts = parts_of(RESULTS)
    assert {name: each.score for name, each in parts.items()} == {
        "ledger": 1.0,
        "states": 0.0,
        "breaker": 0.5,
    }
    assert parts["breaker"].survivors == ["workers.breaker.rules.x_two__mutmut_1"]
    assert parts["ledger"].hung == ["dispatcher.ledger.line.x_one__mutmut_2"]


@pytest.mark.parametrize(
    ("found", "reasons", "code", "last"),
    [
        (part(18, 2), {CHANGE: "equivalent"}, 0, "mutants: states=0.90 survivors=2"),
        (part(17, 3), {CHANGE: "equivalent"}, 1, "mutants: states=0.85 survivors=3"),
        (part(18, 2), {}, 1, "mutants: states=0.90 survivors=2"),
        (part(18, 2), {CHANGE: ""}, 1, "mutants: states=0.90 survivors=2"),
        (part(0, 0), {}, 1, "mutants: states=0.00 survivors=0"),
        (part(18, 0, 1), {}, 2, "the run did not end: 1 mutants were not tried; `--keep` goes on with it"),
    ],
    ids=["enough", "too few", "no reason", "an empty reason", "no mutants", "an unfinished run"],
)
def test_enough_must_be_killed_and_each_survivor_needs_a_reason(
    found: Part, reasons: dict[Change, str], code: int, last: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report({"states": found}, Reasons(reasons), lambda _: CHANGE) == code
    assert capsys.readouterr().out.splitlines()[-1] == last


def test_what_is_printed_for_a_survivor_is_what_the_list_takes() -> None:
    assert known_survivors(entry(CHANGE) + '\nreason = "equivalent"\n').of(CHANGE) == "equivalent"
    assert known_survivors("").of(CHANGE) == ""


def test_a_kind_of_changes_has_one_reason_and_no_other_change_has_it() -> None:
    reasons = known_survivors("""
        [[kind]]
        ignored = ', strict=(True|False)'
        reason = "equally long"
    """)
    changes = {
        "zip(a, b, strict=False)": "equally long",
        "zip(a, b)": "equally long",
        "zip(a, None, strict=True)": "",
    }
    assert {each: reasons.of(Change("f", "zip(a, b, strict=True)", each)) for each in changes} == changes
