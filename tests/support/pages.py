"""The pages in docs/ and their blocks of code, as the tests of them see both."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ALL_PAGES", "ROOT", "Block", "blocks_of", "commands_of", "inline_commands", "name_of"]

ROOT = Path(__file__).parents[2]
ALL_PAGES = [
    ROOT / "README.md",
    ROOT / "README.zh.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
FENCE = re.compile(
    r"^(?:<!-- not run: (?P<reason>[^\n]*?) -->\n+)?"
    r"(?P<fence>`{3,})(?P<language>[\w-]*)[^\n]*\n(?P<text>.*?)^(?P=fence)$",
    re.DOTALL | re.MULTILINE,
)
INLINE = re.compile(r"`([^`\n]+)`")
SEPARATORS = {"|", "||", "&&", ";", "&"}
REDIRECTIONS = {">", ">>", "<", "2>", "&>"}
ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=.*", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A block of code. `<!-- not run: REASON -->` in the line above it says why no test carries it out."""

    language: str
    text: str
    reason: str | None
    line: int


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks_of(page: Path) -> list[Block]:
    """All blocks of a page, in their order."""
    text = page.read_text("utf-8")
    return [
        Block(
            found["language"], found["text"], found["reason"], text.count("\n", 0, found.start("fence")) + 1
        )
        for found in FENCE.finditer(text)
    ]


def commands_of(block: Block) -> list[list[str]]:
    """The commands in a block for a shell, each as its words; pipes and lists of commands are taken apart.

    If lines begin with `$ `, the others are output.
    """
    lines = block.text.replace("\\\n", " ").splitlines()
    prompts = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    return [command for line in prompts or lines for command in _commands_in(line)]


def inline_commands(page: Path, program: str) -> list[list[str]]:
    """The calls of a program in the text of a page."""
    text = FENCE.sub("", page.read_text("utf-8"))
    return [
        command
        for code in INLINE.findall(text)
        if code.startswith(f"{program} ")
        for command in _commands_in(code.replace("\\|", "|"))
    ]


def _commands_in(line: str) -> list[list[str]]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    commands: list[list[str]] = [[]]
    skip = False
    for word in lexer:
        if word in SEPARATORS:
            commands.append([])
        elif word in REDIRECTIONS:
            skip = True
        elif skip:
            skip = False
        elif commands[-1] or not ASSIGNMENT.fullmatch(word):
            commands[-1].append(word)
    return [command for command in commands if command]
