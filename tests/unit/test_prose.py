"""Pages, docstrings, comments and messages are plain English, in phrases that every reader understands."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]
LONGEST_SENTENCE = 25
"""Words."""

REFUSED = {
    "tell: write says, shows or reports": r"\b(tells?|telling|told)\b",
    "hear: write learns or receives": r"\b(hears?|heard|hearing)\b",
    "speak: write counts, uses or names": r"\b(speaks?|spoke|spoken|speaking)\b",
    "stand: write is or has": r"\b(stands?|stood|standing)\b",
    "go by: write use": r"\b(goes|go|going|went|gone) by\b",
    "be had: write be available": r"\bbe had\b",
    "will do: write works": r"\b(will|would) do\b",
    "nobody: name the component": r"\b(no|some|any|every)body\b",
    "whoever: name the component": r"\b(who|what|which|where)ever\b",
    "where: write if": r"(?:^|(?<=[.:;!?|] ))(?-i:Where)\b[^.?!]*,"
    r"|\b(none|true|false|nothing|empty|absent|raised|`x`),? where\b",
}
"""What is refused and what to write instead, with its pattern."""

PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
SOURCES = [
    file
    for folder in ("dispatcher", "workers", "executor", "conformance", "examples", "docs", "config")
    for file in sorted((ROOT / folder).rglob("*"))
    if file.suffix in {".py", ".lua", ".toml", ".yml"} and file.parent != ROOT / "workers" / "drivers"
]

NAMES = {"for each finding: what, level, told, fix"}
"""Lists of names that programs read, and no prose."""


def paragraphs(file: Path) -> Iterator[str]:
    """What people read of a file, on one line each. Inline code becomes `x`."""
    text = file.read_text("utf-8")
    for paragraph in READERS[file.suffix](text):
        yield re.sub(r"`[^`]+`", "`x`", " ".join(paragraph.split()))


def of_a_page(text: str) -> Iterator[str]:
    """Paragraphs, list items, cells of tables, and comments in blocks of code."""
    for block in re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        yield from re.findall(r"(?:^|\s)#\s+(.+)", block)
    text = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"\]\([^)]*\)", "]", text)
    for paragraph in re.split(r"\n\n|\n(?=[-|] ?|\d+\. )", text):
        yield from paragraph.split("|") if paragraph.startswith("|") else [paragraph]


def of_a_module(source: str) -> Iterator[str]:
    """Comments, docstrings and messages. What a message fills in becomes `x`."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.string.strip("# ")
    for text in texts_of(ast.parse(source)):
        if " " in text:
            yield from text.split("\n\n")


def texts_of(node: ast.AST) -> Iterator[str]:
    """Its strings, those in pieces as one."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        yield "".join(str(each.value) if isinstance(each, ast.Constant) else "`x`" for each in node.values)
        for each in node.values:
            if isinstance(each, ast.FormattedValue):
                yield from texts_of(each.value)
        return
    for child in ast.iter_child_nodes(node):
        yield from texts_of(child)


def of_comments(mark: str) -> Callable[[str], Iterator[str]]:
    """A reader of whole comments that begin with this mark."""
    comments = re.compile(rf"(?:^|[ ,]){mark}+ (.+)")

    def read(text: str) -> Iterator[str]:
        found = [comments.search(line) for line in text.splitlines()]
        yield from "\n".join("" if each is None else each[1] for each in found).split("\n\n")

    return read


READERS: dict[str, Callable[[str], Iterator[str]]] = {
    ".md": of_a_page,
    ".py": of_a_module,
    ".lua": of_comments("--"),
    ".toml": of_comments("#"),
    ".yml": of_comments("#"),
}


def refused(text: str) -> list[str]:
    return [what for what, pattern in REFUSED.items() if re.search(pattern, text, re.IGNORECASE)]


def long_sentences(text: str) -> list[str]:
    sentences = re.split(r"(?<=[.:;!?])\s+", text)
    return [each for each in sentences if len(re.findall(r"\S*\w\S*", each)) > LONGEST_SENTENCE]


def name(file: Path) -> str:
    return str(file.relative_to(ROOT))


@pytest.mark.parametrize("file", [*PAGES, *SOURCES], ids=name)
def test_no_phrase_is_refused(file: Path) -> None:
    prose = set(paragraphs(file)) - NAMES
    assert [(what, text) for text in prose for what in refused(text)] == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_sentences_on_pages_are_short(page: Path) -> None:
    assert [sentence for text in paragraphs(page) for sentence in long_sentences(text)] == []


@pytest.mark.parametrize(
    ("awkward", "plain"),
    [
        ("Doctor tells what is wrong", "Doctor reports what is wrong"),
        ("Waiters hear of a wiped Redis", "Waiters notice a wiped Redis"),
        ("Every other answer speaks for the Executor", "Any other answer counts as success"),
        (
            "The rules stand in a table",
            "The rules are in a table; this is the standard, as readers understand it",
        ),
        ("It goes by a breaker of its own", "It falls back to a local breaker"),
        ("Port 80 is not to be had", "Port 80 is not available"),
        ("A generator will do", "Any iterable works"),
        ("Somebody must act", "A worker must act"),
        ("Whoever waits learns of it", "Clients that wait learn of it"),
        ("Where no worker is free, the plan waits", "If no worker is free, the plan waits"),
        ("The state. None where the plan is unknown", "The state. It is where Celery looks for it"),
    ],
)
def test_an_awkward_phrase_is_found_and_a_plain_one_is_not(awkward: str, plain: str) -> None:
    assert len(refused(awkward)) == 1
    assert refused(plain) == []


def test_a_sentence_of_25_words_is_short_and_one_of_26_is_long() -> None:
    sentence = " ".join(["word"] * LONGEST_SENTENCE)
    assert long_sentences(f"Short. {sentence}. Short.") == []
    assert long_sentences(f"Short. {sentence} more. Short.") == [f"{sentence} more."]


def test_pages_are_read_with_their_tables_and_comments_but_without_code() -> None:
    page = "A page `told`.\n\n- an item\n- [another](told.md)\n\n| a | b |\n\n```\ntold()  # a comment\n```\n"
    assert [text for text in map(str.strip, of_a_page(page)) if text] == [
        "a comment",
        "A page `told`.",
        "- an item",
        "- [another]",
        "a",
        "b",
    ]


def test_modules_are_read_with_comments_docstrings_and_messages_but_without_names() -> None:
    module = '"""A docstring."""\ntold = f"plan {told[\'a b\']} has ended"  # a comment\n'
    assert list(of_a_module(module)) == ["a comment", "A docstring.", "plan `x` has ended", "a b"]
