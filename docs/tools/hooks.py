"""What the site has beyond the pages in docs/: those made while it is built, and links that work in it.

Pages link as files of this project do, so that they can be read without the site. In the site, a link to a
program or a data file leads to a page that shows it.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING

from mkdocs.structure.files import File

from docs.tools.api_pages import api_pages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
COPIED = {"CHANGELOG.md": "changelog.md", "README.zh.md": "zh.md"}
"""Pages from outside docs/, and what the site calls them."""

WIDE = {"errors.md", "settings.md"}
"""Pages whose tables need the room of the table of contents."""

PAGE_OF = COPIED | {"README.md": "index.md"}
FENCED = re.compile(r"(^```.*?^```)", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"(?<=\]\()(?!\w+:)([^)\s#]+)(?=[)#])")
LANGUAGES = {".lua": "lua", ".py": "python", ".toml": "toml", ".yaml": "yaml", ".yml": "yaml"}


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the pages that are made here."""
    pages = {name: (ROOT / file).read_text("utf-8") for file, name in COPIED.items()}
    pages |= {"adr/index.md": _decisions(), **api_pages()}
    for source in sorted(_linked_sources()):
        pages[_page_of_source(source)] = _shown(source)
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links lead to pages of the site."""
    del config
    if page.file.src_uri in WIDE:
        page.meta["hide"] = ["toc"]
    names = {name: file for file, name in COPIED.items()}
    name = page.file.src_uri
    at = names.get(name, f"docs/{name}")

    def in_site(link: str) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(at), link))
        return posixpath.relpath(_place(target, files), posixpath.dirname(name) or ".")

    return _with_links(markdown, in_site)


def _place(target: str, files: Files) -> str:
    """The address of a project file on the site. If the site has no such file, its path: a broken link."""
    if target in PAGE_OF:
        return PAGE_OF[target]
    in_docs = target.removeprefix("docs/")
    for place in (in_docs, f"{in_docs}/index.md", _page_of_source(target)):
        if files.get_file_from_path(place) is not None:
            return place
    return target


def _with_links(markdown: str, change: Callable[[str], str]) -> str:
    """The text with each link changed, but not those in blocks of code."""
    parts = FENCED.split(markdown)
    parts[::2] = [LINK.sub(lambda found: change(found[1]), text) for text in parts[::2]]
    return "".join(parts)


def _links(file: Path) -> Iterator[Path]:
    """The files and folders that a page links to."""
    for found in LINK.findall(FENCED.sub("", file.read_text("utf-8"))):
        yield (file.parent / found).resolve()


def _linked_sources() -> set[str]:
    """Files and folders that pages link to, by their names in this project, without pages and pictures."""
    pages = [*(ROOT / "docs").rglob("*.md"), *(ROOT / name for name in COPIED)]
    targets = {target for page in pages for target in _links(page)}
    return {
        target.relative_to(ROOT).as_posix()
        for target in targets
        if target.is_relative_to(ROOT)
        and target.exists()
        and target.suffix not in {".md", ".png", ".svg"}
        and target != ROOT / "docs" / "adr"
    }


def _page_of_source(name: str) -> str:
    return f"source/{name}.md"


def _shown(name: str) -> str:
    """A page that shows a file, or all files of a folder."""
    path = ROOT / name
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    parts = [f"# {name}\n"]
    for file in files:
        if file.is_file():
            heading = "" if file == path else f"## {file.name}\n\n"
            language = LANGUAGES.get(file.suffix, "text")
            parts.append(f"{heading}````{language}\n{file.read_text('utf-8').rstrip()}\n````\n")
    return "\n".join(parts)


def _decisions() -> str:
    """The list of all decisions."""
    rows = []
    for file in sorted((ROOT / "docs" / "adr").glob("[0-9]*.md")):
        title = file.read_text("utf-8").partition("\n")[0].removeprefix("# ")
        number, _, what = title.partition(". ")
        rows.append(f"| {number} | [{what}]({file.name}) |")
    head = "# Decisions\n\nWhy it is as it is: one page for each decision.\n\n| | decision |\n|---|---|\n"
    return head + "\n".join(rows) + "\n"
