"""docs/specification.md lists all that the source specification names. Its own names and tests exist."""

from __future__ import annotations

import ast
import functools
import importlib
import re
from enum import Enum
from pathlib import Path

import pytest

from dispatcher import RetryStrategy, specification
from dispatcher.specification import ExecutorClientConfig

TESTS = Path(__file__).parents[1]
PAGE = (TESTS.parent / "docs" / "specification.md").read_text("utf-8")
SOURCE = (TESTS / "specification" / "executor-integration.zh.md").read_text("utf-8")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
OUR_NAME = re.compile(r"`((?:dispatcher|workers)(?:\.\w+)+)`")
TEST = re.compile(r"`([\w/]+\.py)::(\w+)`")
ROW = re.compile(r"^\|(.+)\|$", re.MULTILINE)
OPTION = re.compile(r"^    (\w+): (?:str|int|float|bool|RetryStrategy) = (\S+)", re.MULTILINE)

TERMS = {
    "headings": r"^#+ (.+)$",
    "classes": r"^class (\w+)",
    "methods": r"^ +def ([a-z]\w+)\(",
    "options and metrics": r"^    (\w+): \w+ = ",
    "members of an enumeration": r"^    ([A-Z_]+) = \"",
    "arguments in the examples": r"^    (\w+)=(?:\"|FaultType|[\d.]+,)",
    "fields of the API": r"json:\"(\w+)",
    "structures of the API": r"^type (\w+) struct",
    "states of the API": r"\"(applied|failed|running|completed)\"",
    "endpoints": r"((?:GET|POST|DELETE) +/v1/[\w/:]+)",
    "components": r"(?:interface|class|component) \"([\w ]+)",
    "rows of tables": r"^\| (\*\*.+?\*\*) \|",
    "states of the breaker": r"│ +(CLOSED|OPEN|HALF_OPEN)\b",
    "levels of log lines": r"((?:DEBUG|INFO|ERROR) \(\w+\))",
}
"""What the page must list, by what it looks like in the source."""


def named(pattern: str) -> list[str]:
    """What the source has of this kind, as the page writes it."""
    found = re.findall(pattern, SOURCE, re.MULTILINE)
    return list(dict.fromkeys(re.sub(r" {2,}", " ", each).strip() for each in found))


def headings() -> list[str]:
    text = re.sub(r"[`*]", "", BLOCK.sub("", SOURCE))
    return re.findall(r"^#+ (.+)$", text, re.MULTILINE)


def section(title: str) -> str:
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def rows(text: str) -> list[list[str]]:
    """The cells of each row, without heads of tables."""
    cells = [[cell.strip() for cell in row.split("|")] for row in ROW.findall(text)]
    heads = [number - 1 for number, row in enumerate(cells) if set(row[0]) == {"-"}]
    return [row for number, row in enumerate(cells) if number not in heads and set(row[0]) != {"-"}]


@functools.cache
def functions(file: Path) -> set[str]:
    tree = ast.parse(file.read_text("utf-8"))
    assigned = {
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)} | assigned


@pytest.mark.parametrize("kind", TERMS)
def test_every_term_of_the_specification_is_on_the_page(kind: str) -> None:
    terms = headings() if kind == "headings" else named(TERMS[kind])
    assert terms, "the pattern finds nothing"
    assert [term for term in terms if term not in PAGE] == []


def test_the_terms_are_as_many_as_the_specification_has() -> None:
    counts = {kind: len(headings() if kind == "headings" else named(TERMS[kind])) for kind in TERMS}
    assert counts == {
        "headings": 19,
        "classes": 10,
        "methods": 8,
        "options and metrics": 26,
        "members of an enumeration": 3,
        "arguments in the examples": 15,
        "fields of the API": 17,
        "structures of the API": 4,
        "states of the API": 4,
        "endpoints": 7,
        "components": 7,
        "rows of tables": 20,
        "states of the breaker": 3,
        "levels of log lines": 3,
    }


def exists(name: str) -> bool:
    """Whether a module, or what is in one, has this name."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:length]))
            functools.reduce(getattr, parts[length:], found)
        except ModuleNotFoundError:
            continue
        except AttributeError:
            return False
        return True
    return False


def test_every_name_of_ours_exists() -> None:
    names = set(OUR_NAME.findall(PAGE))
    assert names
    assert {name for name in names if not exists(name)} == set()


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("dispatcher.Dispatcher.no_such_method", False),
        ("dispatcher.Dispatcher.submit", True),
        ("workers.breaker", True),
        ("workers.no_such_module", False),
        ("nowhere.at_all", False),
    ],
)
def test_a_wrong_name_is_found_and_a_right_one_is_not(name: str, known: bool) -> None:  # noqa: FBT001
    assert exists(name) is known


def test_every_test_that_the_page_names_exists() -> None:
    names = set(TEST.findall(PAGE))
    assert names
    files = {
        name: [path for path in TESTS.rglob("*.py") if path.as_posix().endswith(f"/{name}")]
        for name, _ in names
    }
    missing = {
        (name, test) for name, test in names if not any(test in functions(path) for path in files[name])
    }
    assert missing == set()


def test_every_row_names_the_test_that_shows_it() -> None:
    left_out = section("Headings") + section("Components")
    shown = [row for row in rows(PAGE) if row not in rows(left_out)]
    assert [row[0] for row in shown if not TEST.fullmatch(row[-1])] == []


def test_every_option_has_the_default_that_the_page_and_the_specification_say() -> None:
    config = ExecutorClientConfig()
    ours = {name: getattr(config, name) for name, _ in OPTION.findall(section_of_options())}
    ours = {name: str(value.value if isinstance(value, Enum) else value) for name, value in ours.items()}
    assert {row[0].strip("`"): row[1].strip("`") for row in rows(section("Options"))} == ours
    specified = {name: as_written(value) for name, value in OPTION.findall(section_of_options())}
    assert ours == specified | {"base_url": "http://localhost:8000"}  # as `__post_init__` has it


def section_of_options() -> str:
    return SOURCE.split("class ExecutorClientConfig:")[1].split("def __post_init__")[0]


def as_written(value: str) -> str:
    if value.startswith("RetryStrategy."):
        return RetryStrategy[value.removeprefix("RetryStrategy.")].value
    return str(ast.literal_eval(value))


def test_every_python_name_of_the_specification_is_in_the_module() -> None:
    classes = {*named(TERMS["classes"]), "FaultPlan", "FaultType", "RawObservation"}
    assert classes == set(specification.__all__)


def test_the_members_of_each_class_are_those_of_the_specification() -> None:
    for owner, text in re.findall(r"^class (\w+).*?:\n(.*?)(?=^\S|\Z)", SOURCE, re.DOTALL | re.MULTILINE):
        methods = re.findall(r"^    def ([a-z]\w+)\(", text, re.MULTILINE)
        fields = re.findall(r"^    (\w+): \w+ = ", text, re.MULTILINE)
        kind = getattr(specification, owner)
        made = kind() if fields else kind
        assert [name for name in methods + fields if not hasattr(made, name)] == [], owner
