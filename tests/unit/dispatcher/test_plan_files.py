"""Plan files in every format, and what is said of a bad one."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.pages import ROOT
from support.plans import abort_plan

from dispatcher import InvalidPlanError
from dispatcher.cli.plan_files import read_entries, read_plans

if TYPE_CHECKING:
    from pathlib import Path

ONE = {
    "service": "PaymentService",
    "api": "/api/v1/payment/process",
    "fault_type": "abort",
    "abort_http_status": 503,
    "percentage": 100,
    "duration_seconds": 1,
}
TWO = ONE | {"percentage": 7}
PLANS = [abort_plan(), abort_plan(percentage=7)]
YAML = "\n".join(f"{'- ' if name == 'service' else '  '}{name}: {value}" for name, value in ONE.items())
FLOW = f"{{{', '.join(f'{name}: {value}' for name, value in ONE.items())}}}"

TEXTS = {
    "list.json": json.dumps([ONE, TWO], indent=1),
    "lines.jsonl": f"{json.dumps(ONE)}\n\n{json.dumps(TWO)}\n",
    "lines.ndjson": f"{json.dumps(ONE)}\n{json.dumps(TWO)}",
    "list.yaml": f"{YAML}\n{YAML.replace('100', '7')}",
    "flow.yaml": f"- {FLOW}\n- {FLOW.replace('100', '7')}",
    "documents.yml": f"---\n{json.dumps(ONE)}\n---\n{json.dumps(TWO)}\n",
}


def typed(text: str) -> io.TextIOWrapper:
    """Standard input that holds the text."""
    return io.TextIOWrapper(io.BytesIO(text.encode()))


def problems(names: list[str]) -> list[tuple[str, str]]:
    with pytest.raises(InvalidPlanError) as caught:
        read_plans(names)
    return caught.value.problems


def test_headers_of_a_command_narrow_every_plan_and_a_plan_with_another_value_is_named(
    tmp_path: Path,
) -> None:
    plans = [ONE, ONE | {"headers": {"x-run": "7"}}, ONE | {"headers": {"x-run": "8", "x-a": "1"}}]
    file = tmp_path / "plans.json"
    file.write_text(json.dumps(plans))
    found = list(read_entries([str(file)], ["x-run: 7"]))
    assert [entry.plan and entry.plan.headers for entry in found] == [{"x-run": "7"}, {"x-run": "7"}, None]
    assert found[2].problems == [("headers", "has another value of x-run already")]


def test_the_example_of_a_test_run_holds_plans() -> None:
    plans = read_plans([str(ROOT / "examples" / "test_traffic.yaml")])
    assert [plan.headers for plan in plans] == [{"x-test-run": "42"}] * 2


@pytest.mark.parametrize("name", TEXTS)
def test_every_format_holds_many_plans(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(TEXTS[name])
    assert read_plans([str(tmp_path / name)]) == PLANS


@pytest.mark.parametrize("name", TEXTS)
def test_the_format_of_standard_input_is_known_by_how_it_begins(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", typed(TEXTS[name]))
    assert read_plans(["-"]) == PLANS


@pytest.mark.parametrize(
    "text", [json.dumps(ONE), json.dumps(ONE, indent=2), YAML[2:].replace("\n  ", "\n"), FLOW]
)
def test_one_plan_needs_no_list(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", typed(text))
    assert read_plans(["-"]) == PLANS[:1]


@pytest.mark.parametrize(
    "text", [f"[{FLOW}, {FLOW.replace('100', '7')}]", f"{FLOW}\n{FLOW.replace('100', '7')}\n"]
)
def test_plans_in_the_flow_style_of_yaml_are_not_json(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", typed(text))
    assert read_plans(["-"]) == PLANS


def test_a_closed_standard_input_is_a_file_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(InvalidPlanError, match=r"standard input.* cannot be read: it is closed"):
        read_plans(["-"])


def test_the_line_of_each_plan_is_known_in_every_format(tmp_path: Path) -> None:
    lines = {}
    for name, text in TEXTS.items():
        (tmp_path / name).write_text("\ufeff" + text, "utf-8")
        lines[name] = [entry.line for entry in read_entries([str(tmp_path / name)])]
    assert lines == {
        "list.json": [2, 10],
        "lines.jsonl": [1, 3],
        "lines.ndjson": [1, 2],
        "list.yaml": [1, 7],
        "flow.yaml": [1, 2],
        "documents.yml": [2, 4],
    }


def test_files_come_one_after_the_other(tmp_path: Path) -> None:
    for number, plan in enumerate((ONE, TWO)):
        (tmp_path / f"{number}.json").write_text(json.dumps(plan))
    assert read_plans([str(tmp_path / "0.json"), str(tmp_path / "1.json")]) == PLANS


def test_every_wrong_field_of_every_plan_is_named_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps([ONE | {"percentage": 101}, ONE]))
    (tmp_path / "b.json").write_text(json.dumps([ONE, ONE | {"service": "", "color": "red"}]))
    named = [field for field, _ in problems([str(tmp_path / "a.json"), str(tmp_path / "b.json")])]
    assert named == [
        f"{tmp_path}/a.json, plan 1, line 1: percentage",
        f"{tmp_path}/b.json, plan 2, line 1: service",
        f"{tmp_path}/b.json, plan 2, line 1: color",
    ]


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.json", "{", "cannot be read"),
        ("a.json", '{"service": "a", "service": "b"}', "'service' is given twice"),
        ("a.json", '[{"a": 1},\n {"b": 1, "b": 2}]', "'b' is given twice, in the plan of line 2"),
        ("a.json", "[" * 100_000, "cannot be read"),
        ("a.jsonl", '{}\n{"a"}', "line 2"),
        ("a.yaml", "service: a\nservice: b", "'service' is given twice"),
        ("a.yaml", "percentage: 0144", "'0144' is not a plain decimal number, line 1"),
        ("a.yaml", "a: 1\nabort_http_status: 0767", "'0767' is not a plain decimal number, line 2"),
        ("a.yaml", "duration_seconds: 1:00", "'1:00' is not a plain decimal number"),
        ("a.yaml", "duration_seconds: -1:00.5", "'-1:00.5' is not a plain decimal number"),
        ("a.yaml", "percentage: 0x64", "'0x64' is not a plain decimal number"),
        ("a.yaml", "percentage: 0b11", "'0b11' is not a plain decimal number"),
        ("a.yaml", "duration_seconds: 1_0", "'1_0' is not a plain decimal number"),
        ("a.yaml", "delay_seconds: .inf", "'.inf' is not a plain decimal number"),
        ("a.yaml", "delay_seconds: 00.5", "'00.5' is not a plain decimal number"),
        ("a.yaml", "percentage: !!int '0144'", "'0144' is not a plain decimal number"),
        ("a.yaml", f"percentage: {'9' * 5_000}", "cannot be read"),
        ("a.yaml", "a: 1\nstart_time: 2030-13-45", "'2030-13-45' is not a date and time, line 2"),
        ("a.yaml", "start_time: 2030-01-01T00:00:00+99:00", "is not a date and time, line 1"),
        ("a.yaml", "start_time: !!timestamp soon", "'soon' is not a date and time, line 1"),
        ("a.yaml", "a: !!bool maybe", "'maybe' is not true or false, line 1"),
        ("a.yaml", "- &a {b: 1, b: 2}\n- <<: *a", "'b' is given twice, line 1"),
        ("a.yaml", "<<: 7", "expected a mapping or list of mappings for merging"),
        ("a.yaml", "a: [", "cannot be read"),
        ("a.yaml", "!!python/object/apply:os.getcwd []", "cannot be read"),
        ("a.yaml", "", "holds no plan"),
        ("a.yaml", "just words", "must be a mapping"),
        ("a.json", "7", "must be a mapping"),
        ("a.yaml", "{a: 1}\n{a: ]", "line 2"),
        ("a.yaml", "? [a]\n: 1", "a key must be a text, line 1"),
        ("a.yaml", "a: \x00", "cannot be read"),
        ("plans", "{service: a}\n{service: [}", "line 2: "),
        ("plans.csv", "service,api\nA,/a", "must be a mapping"),
    ],
)
def test_a_bad_file_is_named_with_what_is_wrong(name: str, text: str, told: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    [(where, problem)] = problems([str(tmp_path / name)])
    assert str(tmp_path / name) in where
    assert told in problem


MERGED = """
- &first
{plan}
- &second {{<<: *first, percentage: 7}}
- *second
- {{<<: [*second, *first], percentage: 100}}
"""


def test_plans_in_yaml_may_take_fields_from_others(tmp_path: Path) -> None:
    plan = YAML.replace("- ", "  ", 1)
    (tmp_path / "a.yaml").write_text(MERGED.format(plan=plan))
    assert read_plans([str(tmp_path / "a.yaml")]) == [PLANS[0], PLANS[1], PLANS[1], PLANS[0]]


@pytest.mark.parametrize("written", ["7", "+7", "7.0", "7.", "!!int '7'", "!!float 7"])
def test_a_number_in_yaml_is_the_number_that_is_written(written: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(YAML.replace("percentage: 100", f"percentage: {written}"))
    assert [plan.percentage for plan in read_plans([str(tmp_path / "a.yaml")])] == [7]


@pytest.mark.parametrize("written", ["0.5", ".5", "5.0e-1"])
def test_so_is_a_fraction(written: str, tmp_path: Path) -> None:
    delay = YAML.replace("abort_http_status: 503", f"delay_seconds: {written}").replace("abort", "delay")
    (tmp_path / "a.yaml").write_text(delay)
    assert [plan.delay_seconds for plan in read_plans([str(tmp_path / "a.yaml")])] == [0.5]


def test_a_file_that_is_not_there_is_named() -> None:
    assert problems(["nowhere.yaml"]) == [("nowhere.yaml", "cannot be read: No such file or directory")]


def test_a_file_that_is_not_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"\xff\xfe\x00")
    assert problems([str(tmp_path / "a.yaml")])[0][1] == "cannot be read: it is not UTF-8 text"


PIECES = st.sampled_from(
    [
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        '"',
        "'",
        "- ",
        "\n",
        "service",
        "A",
        "7",
        "&a",
        "*a",
        "!!",
        "#",
        " ",
        "\t",
        "null",
        "1e999",
        "|",
        "?",
        "<<: ",
        "!!bool ",
        "!!timestamp ",
        "2030-13-45",
    ]
)


@given(
    raw=st.binary(max_size=60) | st.lists(PIECES, max_size=30).map(lambda pieces: "".join(pieces).encode())
)
@pytest.mark.parametrize("suffix", [".yaml", ".json", ".jsonl", ""])
def test_each_entry_of_any_file_is_a_plan_or_a_sentence(
    suffix: str, raw: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.getbasetemp() / f"odd{suffix}"
    file.write_bytes(raw)
    entries = list(read_entries([str(file)]))
    assert entries
    for entry in entries:
        assert (entry.plan is None) == bool(entry.problems)
        assert all("\n" not in problem and problem for _, problem in entry.problems)


def test_a_large_file_takes_time_in_proportion(tmp_path: Path) -> None:
    (tmp_path / "keys.yaml").write_text("\n".join(f"key{number}: 1" for number in range(5_000)))
    [entry] = read_entries([str(tmp_path / "keys.yaml")])
    assert len(entry.problems) > 5_000
