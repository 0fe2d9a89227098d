"""The packages that are installed next to this one: `workers`, `executor` and `conformance`.

These names are common. A folder of the working directory or of PYTHONPATH may have them, too.
"""

from __future__ import annotations

import importlib
import sys
from importlib.machinery import PathFinder
from importlib.util import find_spec, module_from_spec
from pathlib import Path

from dispatcher.errors import InvalidSettingsError

__all__ = ["FOLDER", "foreign_path", "import_own"]

FOLDER = Path(__file__).resolve().parents[1]
"""The folder in which all of them are."""


def import_own(name: str) -> None:
    """Import the package `name` from `FOLDER`, even if `sys.path` has another one of this name.

    Modules below it are found there, too. Raises `InvalidSettingsError`, which names the path, if the process
    has imported another module of this name.
    """
    if name not in sys.modules:
        spec = PathFinder.find_spec(name, [str(FOLDER)])
        if spec is None or spec.loader is None:
            raise InvalidSettingsError(f"{FOLDER} has no package {name}: install fault-dispatcher again")
        module = module_from_spec(spec)
        sys.modules[name] = module  # as the documentation of importlib has it
        spec.loader.exec_module(module)
    path = _path_of(getattr(sys.modules[name], "__spec__", None))
    if path is not None and not path.is_relative_to(FOLDER / name):
        raise InvalidSettingsError(
            f"{path} is in the way: this program imported it as {name}, which fault-dispatcher needs"
        )


def foreign_path(name: str) -> Path | None:
    """The file that this `sys.path` has as `name`, if it is not the package in `FOLDER`."""
    importlib.invalidate_caches()
    path = _path_of(find_spec(name))
    return None if path is None or path.is_relative_to(FOLDER / name) else path


def _path_of(spec: object) -> Path | None:
    """The path of the module: its file, or its folder if it has no file."""
    origin = getattr(spec, "origin", None)
    folders = list(getattr(spec, "submodule_search_locations", None) or [])
    found = origin if origin not in {None, "namespace", "built-in"} else next(iter(folders), None)
    return None if found is None else Path(found).resolve()
