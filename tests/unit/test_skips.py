"""A skipped test says what the machine lacks, and fails where nothing may be lacking."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
SKIPPED = """
import pytest
from support.programs import program

@pytest.fixture
def browser():
    return program("no-browser", "no-other-browser")

def test_skipped_by_a_fixture(browser): ...
def test_skipped_by_itself(): program("no-shell")
@pytest.mark.xfail
def test_known_to_fail(): assert False
"""


def outcome(folder: Path, *options: str) -> tuple[int, str]:
    """The exit code of pytest, and what it prints about the three tests above."""
    (folder / "test_skipped.py").write_text(SKIPPED)
    command = [sys.executable, "-m", "pytest", "-ra", "-p", "support.skips", *options, str(folder)]
    environment = os.environ | {"PYTHONPATH": str(TESTS), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


def test_a_skipped_test_says_what_the_machine_lacks(tmp_path: Path) -> None:
    code, printed = outcome(tmp_path)
    assert code == 0, printed
    assert "this machine has no no-browser or no-other-browser on its PATH" in printed
    assert "2 skipped, 1 xfailed" in printed


def test_a_skipped_test_fails_where_nothing_may_be_lacking(tmp_path: Path) -> None:
    code, printed = outcome(tmp_path, "--no-skips")
    assert code == 1, printed
    assert "no test may be skipped here. Skipped: this machine has no no-shell on its PATH" in printed
    assert "1 failed, 1 xfailed, 1 error" in printed
