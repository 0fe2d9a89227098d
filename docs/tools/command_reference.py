"""The reference of all commands, made from their help texts: `python -m docs.tools.command_reference`."""

from __future__ import annotations

import re
import subprocess
import sys

from dispatcher.cli import whole_app

__all__ = ["app", "document"]

HEADER = """\
# Command line

Made by `make docs` from the commands themselves. `--help` prints the same in the terminal, and
`dispatcher --install-completion` has your shell complete commands, options and names of Executors.
"""

MODULE = "docs.tools.command_reference"
app = whole_app()
"""Typer reads it from this module."""


def document() -> str:
    """The Markdown text: Typer's, with whole sentences and links in the list of commands."""
    command = [sys.executable, "-m", "typer", MODULE, "utils", "docs", "--name", "dispatcher"]
    made = subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603 (our own)
    head, *sections = made.rstrip().split("\n## ")
    about = _shorter(head.partition("**Commands**")[0].partition("\n")[2])
    about = about.replace("docs/errors.md", "[errors](errors.md)")
    table = "| command | what it does |\n|---|---|\n" + "".join(map(_row, sections))
    parts = [HEADER, about, table, *(f"## {_shorter(each)}" for each in sections)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _row(section: str) -> str:
    """A line of the list: the command, and the first sentence of its help text."""
    title, _, text = section.partition("\n")
    name = title.strip("`")
    sentence = re.split(r"(?<=\.)\s", text.strip(), maxsplit=1)[0].replace("\n", " ")
    return f"| [`{name}`](#{name.replace(' ', '-')}) | {sentence} |\n"


def _shorter(text: str) -> str:
    """Without the option that all commands have, and Typer's lists of commands, whose sentences end early."""
    text = text.rstrip() + "\n\n"
    text = text.replace("* `--help`: Show this message and exit.\n", "")
    text = re.sub(r"\*\*Options\*\*:\n\n+(?!\*\s)", "", text)
    return re.sub(r"\*\*Commands\*\*:\n\n(\* .*\n)+\n", "", text)


if __name__ == "__main__":
    sys.stdout.write(document())
