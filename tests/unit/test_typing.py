"""Editors and type checkers see the whole public API. The integration tests check its ten uses with both."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import dispatcher
from dispatcher import specification

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
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
