"""The site is built from the pages without a warning, has all of them, and needs no other host."""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import sync_playwright
from support.pages import ROOT
from support.programs import program

import dispatcher

if TYPE_CHECKING:
    from playwright.sync_api import Request

LOADED = {"img": "src", "script": "src", "iframe": "src", "source": "src", "object": "data", "link": "href"}
"""The elements that a browser loads, with the attribute that says from where."""

OF_OTHERS = re.compile(r"(?:url\(|@import\s+)['\"]?(?:https?:)?//", re.IGNORECASE)
PAGES_TO_VISIT = ["index.html", "settings.html", "errors.html", "api/client.html"]


class References(HTMLParser):
    """What a page loads, where it leads, and which anchors it has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.links: set[str] = set()
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        if tag in LOADED and LOADED[tag] in found and found.get("rel") not in {"canonical", "prev", "next"}:
            self.loaded.append(found[LOADED[tag]])
        if tag == "a":
            self.links.add(found.get("href", ""))
        if "id" in found:
            self.anchors.add(found["id"])


def of_other_hosts(text: str, *, html: bool) -> list[str]:
    """What a page or style sheet would load from elsewhere."""
    if not html:
        return OF_OTHERS.findall(text)
    styles = OF_OTHERS.findall(text)
    return styles + [each for each in References(text).loaded if urlsplit(each).netloc]


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """Built once, even if several processes run the tests."""
    folder = tmp_path_factory.getbasetemp()
    folder = folder if worker_id == "master" else folder.parent
    built, said = folder / "site", folder / "site.log"
    with (folder / "site.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not said.exists():
            command = [
                sys.executable,
                "-m",
                "mkdocs",
                "build",
                "--quiet",
                "--strict",
                "--site-dir",
                str(built),
            ]
            environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
            done = subprocess.run(
                command,
                check=False,
                cwd=ROOT,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            said.write_text(done.stdout)
    assert said.read_text() == ""
    return built


def test_every_page_is_in_the_navigation(site: Path) -> None:
    links = References((site / "index.html").read_text("utf-8")).links
    pages = {page.relative_to(ROOT / "docs").with_suffix(".html") for page in (ROOT / "docs").rglob("*.md")}
    pages |= {Path("changelog.html"), Path("zh.html"), Path("adr/index.html"), Path("api/extend.html")}
    assert [str(page) for page in sorted(pages) if str(page) not in links | {"index.html"}] == []


def test_each_public_name_has_a_place_in_the_api_reference(site: Path) -> None:
    anchors: set[str] = set()
    for page in (site / "api").glob("*.html"):
        anchors |= References(page.read_text("utf-8")).anchors
    assert {f"dispatcher.{name}" for name in dispatcher.__all__} <= anchors
    assert "workers.drivers.base.Driver.apply" in anchors
    assert "workers.observers.base.Observer" in anchors


def test_no_page_loads_anything_from_another_host(site: Path) -> None:
    found = {
        str(file.relative_to(site)): others
        for file in site.rglob("*")
        if file.suffix in {".html", ".css"}
        and (others := of_other_hosts(file.read_text("utf-8"), html=file.suffix == ".html"))
    }
    assert found == {}


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ('<script src="https://unpkg.com/x.js"></script>', True),
        ('<link rel="stylesheet" href="//fonts.example/css">', True),
        ('<link rel="preconnect" href="https://fonts.example" crossorigin>', True),
        ('<img src="http://pixel.example/1.gif">', True),
        ("<style>@import 'https://fonts.example/css';</style>", True),
        ("@font-face { src: url(https://fonts.example/a.woff2) }", False),
    ],
)
def test_what_would_be_loaded_from_another_host_is_found(text: str, *, html: bool) -> None:
    assert len(of_other_hosts(text, html=html)) == 1


def test_links_and_files_of_the_site_itself_are_not_loaded_from_another_host() -> None:
    page = (
        '<a href="https://example.org">x</a><img src="states.svg"><link rel="canonical" href="https://a.b">'
    )
    assert of_other_hosts(page, html=True) == []
    assert of_other_hosts("a { background: url(../a.png) url(data:image/png;base64,AA) }", html=False) == []


def test_the_site_is_read_and_searched_from_the_disk_without_a_network(site: Path) -> None:
    path = program("chromium", "chromium-browser", "google-chrome")
    requests: list[str] = []
    errors: list[str] = []

    def note(request: Request) -> None:
        if urlsplit(request.url).scheme not in {"file", "data", "blob"}:
            requests.append(request.url)

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = browser.new_page()
        page.on("request", note)
        page.on("pageerror", lambda error: errors.append(str(error)))
        for name in PAGES_TO_VISIT:
            page.goto((site / name).as_uri())
            assert page.locator("h1").count() >= 1
        page.keyboard.press("s")
        page.keyboard.type("conflict_policy")
        page.locator(".md-search-result__link").first.wait_for(timeout=20_000)
        browser.close()
    assert (requests, errors) == ([], [])
