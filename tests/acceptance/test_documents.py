"""The Python on each page runs, against a real Redis and a real worker that all pages share.

Blocks on a page run one after the other, as a reader runs them. A page in `ALONE` says that each of its
blocks is a program of its own. Most other pages show what is done with a plan or a client: their blocks are
given what `known_to_readers` has.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
from typing import TYPE_CHECKING, Any

import pytest
from celery import Celery
from opentelemetry import trace
from support.fleet import Fleet, close_connections
from support.pages import ALL_PAGES, blocks_of, name_of
from support.plans import abort_plan

import dispatcher as public
from dispatcher import Dispatcher

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ALONE = {"README.md", "docs/history.md", "docs/index.md", "docs/install.md", "docs/recommender.md"}
TOGETHER = {"docs/tutorial.md"}
"""Blocks of these pages build on one another, and on nothing else."""

SAME_AS = {"README.zh.md": "README.md"}
"""Its blocks are those of the other page: tests/unit/test_readme.py."""

PAGES = [
    page
    for page in ALL_PAGES
    if name_of(page) not in SAME_AS
    and any(block.language == "python" and block.reason is None for block in blocks_of(page))
]
DURATION = re.compile(r"(\"?duration_seconds\"?\s*[=:]\s*)\d+")
EXECUTORS = re.compile(r"http://(executor|localhost|127\.0\.0\.1):8000")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(tmp_path_factory.mktemp("pages")) as fleet:
        fleet.stub.health = (200, {"status": "healthy", "capabilities": ["headers", "grpc_status"]})
        yield fleet


@pytest.fixture
def known_to_readers(fleet: Fleet) -> Iterator[dict[str, Any]]:
    """The public names, a client, a plan, its handle, a task of Celery's and a tracer of the reader's own."""
    names: dict[str, Any] = {name: getattr(public, name) for name in public.__all__}
    plan = abort_plan(api=fleet.target())
    with Dispatcher(fleet.settings) as client, Celery(broker="memory://", set_as_current=False) as app:
        report = app.task(report_of, name="report")
        tracer = trace.get_tracer("reader")
        names |= {"dispatcher": client, "plan": plan, "handle": client.submit(plan)}
        yield names | {"report": report, "tracer": tracer}


def report_of(observation: dict[str, Any]) -> dict[str, Any]:
    """A task of a reader's own."""
    return observation


@pytest.mark.filterwarnings("default")  # as readers run them
@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_python_on_a_page_runs(
    page: Path,
    fleet: Fleet,
    known_to_readers: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)  # what a page writes
    for variable, value in fleet.environment.items():
        monkeypatch.setenv(variable, value)
    alone, namespace = name_of(page) in ALONE, {} if name_of(page) in TOGETHER else known_to_readers
    for block in blocks_of(page):
        if block.language != "python" or block.reason is not None:
            continue
        source = EXECUTORS.sub(fleet.stub.url, DURATION.sub(r"\g<1>1", block.text))
        run(source, f"{name_of(page)}, line {block.line}", {} if alone else namespace)
    for app in [each for each in namespace.values() if isinstance(each, Celery)]:
        close_connections(app)


def run(source: str, where: str, namespace: dict[str, Any]) -> None:
    """Carry out a block, which may await at its top level, as notebooks do."""
    code = compile(source, where, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    namespace["__name__"] = "__main__"
    if code.co_flags & inspect.CO_COROUTINE:
        asyncio.run(eval(code, namespace))
    else:
        exec(code, namespace)


def test_a_block_that_fails_is_noticed_and_named() -> None:
    with pytest.raises(AssertionError, match="that much is certain"):
        run('import asyncio\nawait asyncio.sleep(0)\nassert False, "that much is certain"\n', "a page", {})
    with pytest.raises(NameError):
        run("missing", "a page", {})
