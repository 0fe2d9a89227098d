"""The parts of `docs/performance.md` that benchmarks write."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.processes import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["FOLDER", "markdown_table", "rewrite"]

FOLDER = REPOSITORY / "docs"
PAGE = FOLDER / "performance.md"


def rewrite(part: str, text: str, page: Path = PAGE) -> None:
    """Put `text` between the two marks of `part`."""
    begin, end = f"<!-- {part}: written by the benchmark -->", f"<!-- end of {part} -->"
    before, _, rest = page.read_text("utf-8").partition(begin)
    _, _, after = rest.partition(end)
    page.write_text(f"{before}{begin}\n\n{text.strip()}\n\n{end}{after}", "utf-8")


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column names the rows."""
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
