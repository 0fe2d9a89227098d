"""Editors and type checkers see the whole public API: ten real uses, checked by mypy and by pyright."""

from __future__ import annotations

import ast
import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import dispatcher
from dispatcher import specification

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
FOLDER = ROOT / "tests" / "typed_uses"
USES = sorted(FOLDER.glob("*.py"))
PACKAGES = ("conformance", "dispatcher", "executor", "workers")
PUBLIC = {name: getattr(module, name) for module in (dispatcher, specification) for name in module.__all__}


def test_there_are_ten_uses_and_each_public_name_that_does_something_is_in_one() -> None:
    assert len(USES) == 10
    text = "\n".join(file.read_text("utf-8") for file in USES)
    makers = {"Dispatcher", "ExecutorClientConfig", "FaultPlan", "PlanBatch", "PlanHandle", "RawObservation"}
    functions = {name for name, found in PUBLIC.items() if inspect.isfunction(found)}
    assert {name for name in makers | functions if name not in text} == set()


def test_mypy_finds_the_types_of_each_use_without_any_plugin() -> None:
    cache = ["--cache-dir", str(ROOT / ".mypy_cache" / "typed_uses")]
    command = [str(BIN / "mypy"), "--strict", "--no-error-summary", "--config-file=", *cache]
    done = subprocess.run(
        [*command, *map(str, USES)], capture_output=True, text=True, check=False, cwd=FOLDER
    )
    assert (done.stdout, done.stderr) == ("", "")


def test_pyright_finds_the_types_of_each_use() -> None:
    command = [str(BIN / "basedpyright"), "--outputjson", "--pythonpath", sys.executable]
    done = subprocess.run(
        [*command, "--project", str(FOLDER)], capture_output=True, text=True, check=False, cwd=FOLDER
    )
    found = json.loads(done.stdout)
    assert found["summary"]["filesAnalyzed"] == len(USES)
    assert [(each["file"], each["message"]) for each in found["generalDiagnostics"]] == []


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_says_that_it_has_types(package: str) -> None:
    assert (ROOT / package / "py.typed").exists()


def definitions(name: str) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.AnnAssign]:
    """The functions and fields of a public name: of the class and of its bases here, or itself."""
    found = PUBLIC[name]
    owners = (
        [found] if inspect.isfunction(found) else [each for each in inspect.getmro(found) if is_ours(each)]
    )
    for owner in owners:
        [tree] = ast.parse(inspect.cleandoc("\n" + inspect.getsource(owner))).body
        body = tree.body if isinstance(tree, ast.ClassDef) else [tree]
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.AnnAssign):
                yield node


def is_ours(kind: type) -> bool:
    return kind.__module__.partition(".")[0] in PACKAGES


def hints_of(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.AnnAssign) -> list[ast.expr | None]:
    if isinstance(node, ast.AnnAssign):
        return [node.annotation]
    every = [
        *node.args.posonlyargs,
        *node.args.args,
        *node.args.kwonlyargs,
        node.args.vararg,
        node.args.kwarg,
    ]
    own = [each.annotation for each in every if each is not None and each.arg not in {"self", "cls"}]
    return [*own, node.returns]


def is_public(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.AnnAssign) -> bool:
    name = ast.unparse(node.target) if isinstance(node, ast.AnnAssign) else node.name
    return not name.startswith("_") or name == "__init__"


OF_OTHERS = "def to_dataframe("
"""Returns an object of polars or of pandas, which a user need not have."""


def test_every_public_name_has_types_and_none_of_them_is_any() -> None:
    vague = [
        ast.unparse(node).splitlines()[0]
        for name in sorted(PUBLIC)
        for node in definitions(name)
        if is_public(node)
        for hint in hints_of(node)
        if hint is None or "Any" in {part.id for part in ast.walk(hint) if isinstance(part, ast.Name)}
    ]
    assert [each for each in vague if not each.startswith(OF_OTHERS)] == []
