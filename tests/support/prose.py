"""What people read of a file, and which phrases and sentences in it are refused."""

from __future__ import annotations

import ast
import inspect
import re
from operator import itemgetter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping
    from pathlib import Path

__all__ = [
    "LONGEST_SENTENCE",
    "READERS",
    "awkward",
    "long_sentences",
    "names_in",
    "of_a_makefile",
    "of_a_module",
    "of_a_page",
    "of_comments",
    "paragraphs",
    "refused",
]

LONGEST_SENTENCE = 25
"""Words."""

REFUSED = {
    # Components act; they have no mouth, no ears and no hands.
    "tell: write says, shows or reports": r"\b(tells?|telling|told)\b",
    "hear: write learns or receives": r"\b(hears?|heard|hearing)\b",
    "speak: write counts, uses or names": r"\b(speaks?|spoke|spoken|speaking)\b",
    "stand: write is or has": r"\b(stands?|stood|standing)\b",
    "lie: write is": r"\b(lies?|lay|lain|lying)\b",
    "in hand: write processes": r"\bin hand\b",
    "write down: write stores or records": r"\b(wrote|writes?|written|writing|notes?|noted) (\w+ )?down\b",
    "take up: write picks up or starts": r"\b(takes?|took|taken|taking) (it |them |\w+ plans? |the plan )?up"
    r"\b(?! to\b)",
    "turn away: write rejects": r"\bturn(s|ed|ing)? (\w+ )?away\b",
    "put off: write defers": r"\bput(s|ting)? (\w+ |the plan )?off\b",
    "come of: write result, outcome": r"\bc[ao]mes? of (it|them|its?|an?|carrying|the)\b",
    "go by: write use": r"\b(goes|go|going|went|gone) by\b",
    "be had: write be available": r"\bbe had\b",
    "will do: write works": r"\b(will|would) do\b",
    "a look: write check or measurement": r"\b(a|each|every|next|last|one|these|such|first|two|its|another)"
    r" looks?\b(?! (at|like|for|up|into|it|him|her|them)\b)|\blooks\.",
    "is to be done: write must be, or is due": r"\b(is|are|was|were) to be (?!in\b)\w+",
    # A subject that has a name.
    "nobody: name the component": r"\b(no|some|any|every)body\b",
    "whoever: name the component": r"\b(who|what|which|where)ever\b",
    "those who: name them": r"\b(those|all|anyone|everyone) who\b",
    "one's: name the owner": r"\bone's\b",
    "the former: repeat the name": r"\bthe (former|latter)\b",
    # Small words that are others in plain English.
    "where: write if": r"(?:^|(?<=[.:;!?|] ))(?-i:Where)\b[^.?!]*,"
    r"|\b(none|true|false|nothing|empty|absent|raised|`x`),? where\b",
    "for: write because": r", for (it|they|there|nothing|none|that is|this is|these are|all are|all of)\b"
    r"|, for (a|the|no|each|every) \w+ (is|are|was|has|have|may|can|must|would|does)\b",
    "but for: write except": r"\bbut for\b",
    "all but: write all except": r"\b(all|any|none|nothing|everything|anything) but (?!not\b)",
    "else: write otherwise": r"(^|[,;.:?] )else (?!if\b|raise\b)|\bor else\b",
    "also if: write even if": r"\balso (if|when|while|after|without|through|of|that)\b",
    "anew: write again": r"\banew\b",
    "for ever: write forever": r"\bfor ever\b",
    "now and then: write from time to time": r"\bnow and then\b",
    "beside: write next to, or besides": r"\bbeside\b",
    "alone: write only": r"\balone\b",
    "so many: write this many": r"\b(for|at least|by|of|in|within|after|takes|is) so (many|much|long|few)\b",
    "the like: name them": r"\b(its|the|their) like\b",
    "one may: name the subject": r"\bone (may|should|must|needs)\b",
    "by means of: write by or with": r"\bby means of\b",
    "the way of: write life of, or how": r"\bthe way of\b",
    "thereby: write so, or by this": r"\b(there|where|here)(by|of|in|with|upon|from|to|after)\b"
    r"|\b(thence|whence|hence|thus)\b",
    "archaic": r"\b(lest|albeit|whilst|amongst|upon|shall|ought|reckon\w*|save that)\b",
    "filler": r"\b(simply|obviously|of course|basically|in order to|utili[sz]e[sd]?)\b",
    "Latin: write for example, that is": r"\b(i\.e\.|e\.g\.|etc\.)",
    # Constructions.
    "is no: write is not a": r"(?<!there )\b(is|are|was|were|be) no (?!longer|more|less|such|worse|better)\w+"
    r"|\b(that|which) (is|are) (no|none)\b(?! longer)(?! ?`)",
    "it is that which: begin with the subject": r"\bit is (that|this|the) [^.,;]*\b(which|who)\b",
}
"""What is refused and what to write instead, with its pattern."""

STRING_OR_COMMENT = re.compile(
    r'"""(?:\\.|[^\\])*?"""|"(?:\\.|[^"\\\n])*"'
    r"|'''(?:\\.|[^\\])*?'''|'(?:\\.|[^'\\\n])*'"
    r"|(#[^\n]*)",
    re.DOTALL,
)
"""Strings are matched too, because they may have a `#` in them."""

TEST = re.compile(r"^ *(?:async )?def (test_\w+)", re.MULTILINE)
ALLOWED = re.compile(
    r"\b(left|leaves?|leaving|let) ([\w ]+ )?alone\b"  # means: not disturbed
    r"|\bstand-?alone\b"
    r"|\b[Bb]eside (your|their|its|the) (own|old)\b"  # next to
    r"|\b[Ff]iles?, that is\b"
    r"|figures that are None|behind it is None"  # Python's None
    r"|\{prefix\}:beside:|^beside +set",  # a key of the ledger
)
"""What the patterns would find, and what is plain English all the same."""


def paragraphs(file: Path) -> Iterator[str]:
    """What people read of a file, on one line each. Inline code becomes `x`."""
    text = file.read_text("utf-8")
    for paragraph in READERS[file.suffix or file.name](text):
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
    yield from comments_of(source)
    for text in texts_of(ast.parse(source)):
        if " " in text:  # lines that are indented are items of a list
            yield from re.split(r"\n\n|\n(?=  |\s*[├│└])", inspect.cleandoc(text))


def comments_of(source: str) -> Iterator[str]:
    """Each comment. Those on lines of their own that follow each other are one text."""
    text, next_line = "", -1
    for comment in filter(itemgetter(1), STRING_OR_COMMENT.finditer(source)):
        words = re.sub(r"^(noqa|type: ignore)\S*( \w+\d+,?)*", "", comment[1].strip("# "))
        begin = source.rfind("\n", 0, comment.start()) + 1
        if begin == next_line and not source[begin : comment.start()].strip():
            text += " " + words
        else:
            yield text
            text = words
        next_line = comment.end() + 1
    yield text


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
    """A reader of comments that begin with this mark.

    Those on lines of their own that follow each other are one text. Indented ones are items.
    """
    comments = re.compile(rf"(?:^|[ ,]){mark}+ (.+)")
    item = re.compile(rf"\s*{mark}+(  |.* = )")

    def read(text: str) -> Iterator[str]:
        lines = []
        for line in text.splitlines():
            found = comments.search(line)
            if found is None or not line.lstrip().startswith(mark) or item.match(line):
                lines.append("")
            lines.append("" if found is None else found[1])
        yield from "\n".join(lines).split("\n\n")

    return read


def of_a_makefile(text: str) -> Iterator[str]:
    """Comments, and what it prints."""
    yield from of_comments("#")(text)
    yield from re.findall(r'\becho "([^"$]*)', text)


READERS: dict[str, Callable[[str], Iterator[str]]] = {
    "Dockerfile": of_comments("#"),
    "Makefile": of_a_makefile,
    ".example": of_comments("#"),
    ".md": of_a_page,
    ".py": of_a_module,
    ".lua": of_comments("--"),
    ".toml": of_comments("#"),
    ".yml": of_comments("#"),
}


def names_in(source: str) -> Iterator[str]:
    """The names of a module's tests as words: `test_a_plan_ends` is `test a plan ends`."""
    for name in TEST.findall(source):
        yield name.replace("_", " ")


def awkward(texts: Collection[str]) -> list[tuple[str, str]]:
    """What is wrong with the words of these texts of one line each, and with which.

    A pattern that matches nothing in all lines together matches nothing in one of them.
    """
    lines = "\n".join(ALLOWED.sub("x", text) for text in texts)
    found = {
        what: pattern
        for what, pattern in REFUSED.items()
        if re.search(pattern, lines, re.IGNORECASE | re.MULTILINE)
    }
    return [(what, text) for text in texts for what in refused(text, found)]


def refused(text: str, patterns: Mapping[str, str] = REFUSED) -> list[str]:
    """What is wrong with the words of a text."""
    text = ALLOWED.sub("x", text)
    return [what for what, pattern in patterns.items() if re.search(pattern, text, re.IGNORECASE)]


def long_sentences(text: str) -> list[str]:
    """The sentences of more than `LONGEST_SENTENCE` words."""
    if len(text.split()) <= LONGEST_SENTENCE:
        return []
    sentences = re.split(r"(?<=[.:;!?])\s+", text)
    return [each for each in sentences if len(re.findall(r"\S*\w\S*", each)) > LONGEST_SENTENCE]
