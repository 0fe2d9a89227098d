"""Names of a package that are imported when they are first used (PEP 562)."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

__all__ = ["lazy_names"]


def lazy_names(
    package: str, names: Mapping[str, Iterable[str]]
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a package whose modules have these names.

    `names` has the public names of each module below `package`. The modules themselves are attributes of the
    package, too. The package imports the same names under `TYPE_CHECKING`.
    """
    homes = {name: module for module, exported in names.items() for name in exported}
    modules = {module.partition(".")[0] for module in names}

    def __getattr__(name: str) -> object:  # noqa: N807 (it becomes the package's)
        if name in homes:
            found = getattr(import_module(f"{package}.{homes[name]}"), name)
            setattr(sys.modules[package], name, found)  # the next use finds it without this function
            return found
        if name in modules:
            return import_module(f"{package}.{name}")
        raise AttributeError(
            f"module {package!r} has no attribute {name!r}", name=name, obj=sys.modules[package]
        )

    def __dir__() -> list[str]:  # noqa: N807 (the same)
        return sorted({*vars(sys.modules[package]), *homes, *modules})

    return __getattr__, __dir__
