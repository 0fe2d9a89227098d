"""Tests that passed on one machine are left out on the next, unless they use other programs there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
SOME = """
import os
import pytest

@pytest.fixture
def redis_servers(): ...

@pytest.fixture(params=["redis-8.2"])
def redis_client(request, redis_servers): ...

def test_of_the_code(): ...
def test_of_a_program(): os.environ.get("HAS") or pytest.skip("this machine has no program")
def test_of_the_server_that_is_found(redis_servers): ...
def test_of_a_server(redis_client): ...
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tests of two kinds, which have run on a machine that lacks a program."""
    folder = tmp_path_factory.mktemp("passed")
    for kind in ("unit", "acceptance"):
        (folder / kind).mkdir()
        (folder / kind / f"test_{kind}.py").write_text(SOME)
    assert "6 passed, 2 skipped" in run(folder, "--passed-to", str(folder / "passed"))
    return folder


def run(folder: Path, *options: str, **environment: str) -> str:
    """What pytest prints of the tests above."""
    command = [sys.executable, "-m", "pytest", "-v", "-p", "support.passed", *options, str(folder)]
    environment |= {"PYTHONPATH": str(TESTS), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(
        command, cwd=folder, env=os.environ | environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_what_was_skipped_or_may_use_another_program_runs_again(folder: Path) -> None:
    printed = run(folder, "--passed-in", str(folder / "passed"), HAS="it")
    assert "6 passed, 2 deselected" in printed
    assert {line.split(" ")[0] for line in printed.splitlines() if " PASSED" in line} == {
        "unit/test_unit.py::test_of_a_program",
        "unit/test_unit.py::test_of_the_server_that_is_found",
        *(
            f"acceptance/test_acceptance.py::{name}"
            for name in (
                "test_of_the_code",
                "test_of_a_program",
                "test_of_the_server_that_is_found",
                "test_of_a_server[redis-8.2]",
            )
        ),
    }


def test_a_test_of_a_server_that_no_machine_had_yet_runs(folder: Path) -> None:
    ids = (folder / "passed").read_text().splitlines()
    assert "unit/test_unit.py::test_of_a_server[redis-8.2]" in ids
    known = [each for each in ids if "redis-8.2" not in each]
    (folder / "fewer").write_text("".join(f"{each}\n" for each in known))
    printed = run(folder, "--passed-in", str(folder / "fewer"))
    assert "unit/test_unit.py::test_of_a_server[redis-8.2] PASSED" in printed
