"""Finds where code reaches into other packages: private names, and what others share through registries."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

__all__ = ["OWN", "names_defined", "private_names", "shared_state"]

OWN = ("dispatcher", "workers", "executor", "conformance")
PUBLIC = {"_replace", "_asdict", "_fields", "_make"}
"""Documented names of named tuples: the underscore keeps them apart from fields."""

ACCESSORS = {"getattr", "setattr", "hasattr", "delattr", "attrgetter", "methodcaller"}
REGISTRARS = {"control_command", "inspect_command", "register_type", "patch", "monkey_patch", "patch_all"}
MUTATORS = {"append", "clear", "extend", "insert", "pop", "register", "remove", "setdefault", "update"}
PROCESS_WIDE = {"gc.freeze", "gc.disable", "gc.set_threshold"}
DOCUMENTED = {"os.environ", "os.register_at_fork", "sys.argv", "sys.modules"}
"""A program's own environment and command line, and where an importer puts a module."""

STUBS = {"_typeshed"}
"""Exists for type checkers only."""


def names_defined(sources: Iterable[str]) -> set[str]:
    """The private names that these sources define: functions, classes, fields and attributes of `self`."""
    return {name for source in sources for name in _names_in(ast.parse(source))}


def private_names(source: str, inherited: set[str]) -> Iterator[str]:
    """Each private name in the source that is not its own; `self` may also have what it has inherited."""
    tree = ast.parse(source)
    own = _names_in(tree) | PUBLIC
    for node in ast.walk(tree):
        match node:
            case ast.ImportFrom(module=str(module), names=names, level=0):
                found = module not in STUBS and any(_is_private_of(module, each.name) for each in names)
            case ast.Import(names=names):
                found = any(_is_private_of(each.name) for each in names)
            case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name):
                found = _is_private(name) and name not in own | inherited
            case ast.Attribute(attr=name):
                found = _is_private(name) and name not in own
            case ast.Call(func=func, args=args) if _last_name(func) in ACCESSORS:
                texts = {str(each.value) for each in args if isinstance(each, ast.Constant)}
                found = any(map(_is_private, texts - own))
            case _:
                continue
        if found:
            yield _at(node)


def shared_state(source: str) -> Iterator[str]:
    """Each change of what another package, or the whole process, shares."""
    tree = ast.parse(source)
    foreign = _foreign_names(tree)
    for node in ast.walk(tree):
        match node:
            case ast.Assign(targets=targets) | ast.Delete(targets=targets):
                changed = any(_is_part_of(foreign, target) for target in targets)
            case ast.AugAssign(target=target) | ast.AnnAssign(target=target):
                changed = _is_part_of(foreign, target)
            case ast.Call():
                changed = _changes(node, foreign)
            case _:
                continue
        if changed:
            yield _at(node)


def _names_in(tree: ast.AST) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                found.add(name)
            case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name, ctx=ast.Store()):
                found.add(name)
            case ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name):
                found.add(name)
    return {name for name in found if _is_private(name)}


def _changes(call: ast.Call, foreign: set[str]) -> bool:
    name = _last_name(call.func)
    if name in REGISTRARS or _dotted(call.func) in PROCESS_WIDE:
        return True
    if name in {"setattr", "delattr"}:
        return bool(call.args) and _root(call.args[0]) in foreign
    return name in MUTATORS and _is_part_of(foreign, call.func)


def _is_part_of(foreign: set[str], node: ast.expr) -> bool:
    """Whether it is an attribute or an item of something that another package defines."""
    return isinstance(node, ast.Attribute | ast.Subscript) and _root(node) in foreign


def _root(node: ast.expr) -> str:
    """The name at the beginning of a chain of attributes and items."""
    while isinstance(node, ast.Attribute | ast.Subscript):
        if _dotted(node) in DOCUMENTED:
            return ""
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def _last_name(node: ast.expr) -> str:
    return _dotted(node).split(".")[-1]


def _dotted(node: ast.expr) -> str:
    """Such as `os.environ`. What is not a name is left out: `f().get` is `.get`."""
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=value, attr=name):
            return f"{_dotted(value)}.{name}"
    return ""


def python_files(root: Path) -> list[Path]:
    """All modules of the product."""
    return sorted(path for package in OWN for path in (root / package).rglob("*.py"))


def _foreign_names(tree: ast.AST) -> set[str]:
    """Names that imports of other packages bind, anywhere in the module."""
    found = set()
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                found |= {
                    (each.asname or each.name).split(".")[0] for each in names if _is_foreign(each.name)
                }
            case ast.ImportFrom(module=str(module), names=names, level=0) if _is_foreign(module):
                found |= {each.asname or each.name for each in names}
    return found


def _is_foreign(module: str) -> bool:
    return module.split(".", maxsplit=1)[0] not in {*OWN, "__future__", "typing"}


def _is_private_of(module: str, name: str = "") -> bool:
    return _is_foreign(module) and any(map(_is_private, [*module.split("."), name]))


def _is_private(name: str) -> bool:
    return name.startswith("_") and name != "_" and not (name.startswith("__") and name.endswith("__"))


def _at(node: ast.stmt | ast.expr) -> str:
    return f"line {node.lineno}: {ast.unparse(node)[:80]}"
