"""Programs that a machine may lack."""

from __future__ import annotations

import shutil

import pytest


def program(*names: str) -> str:
    """The path of the first of these programs that is on the PATH. Skips the test if none is."""
    paths = [path for path in map(shutil.which, names) if path]
    if not paths:
        pytest.skip(f"this machine has no {' or '.join(names)} on its PATH")
    return paths[0]
