"""The tests' own check: what a test leaves behind is found, and what belongs to others is not."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from support.leftovers import HAS_PROC, MARK, Leftovers

pytestmark = pytest.mark.skipif(not HAS_PROC, reason="this machine has no /proc")
TESTS = Path(__file__).parents[1]
MESSY = """
import socket, subprocess, threading
import pytest
from support import leftovers

leftovers.GONE_WITHIN_S = 0.1
over = threading.Event()
kept = []

@pytest.fixture(scope="session", autouse=True)
def for_all():
    with subprocess.Popen(["sleep", "100"]) as child:
        yield
        child.kill()

@pytest.fixture(scope="session", autouse=True)
def ended():
    yield
    over.set()
    for each in kept:
        each.kill()
        each.wait()

def test_clean(): subprocess.run(["true"])
def test_child(): kept.append(subprocess.Popen(["sleep", "100"]))
def test_orphan(): subprocess.run(["sh", "-c", "sleep 3 & "])
def test_unreaped(): kept.append(subprocess.Popen(["true"]))
def test_thread(): threading.Thread(target=over.wait, name="forgotten").start()
def test_socket(): kept_socket.append(socket.create_server(("127.0.0.1", 0)))
def test_clean_again(): pass

kept_socket = []
"""


def test_a_test_that_leaves_something_behind_fails_and_no_other_does(tmp_path: Path) -> None:
    (tmp_path / "test_messy.py").write_text(MESSY)
    command = [sys.executable, "-m", "pytest", "-rA", "-p", "support.leftovers", str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(TESTS), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    blamed = dict(
        re.findall(r"^ERROR \S+::(\w+) - Failed: left behind: (\w+ [a-z]*)", done.stdout, re.MULTILINE)
    )
    assert blamed == {
        "test_child": "process ",
        "test_orphan": "process ",
        "test_unreaped": "process ",
        "test_thread": "thread forgotten",
        "test_socket": "socket without",
    }, done.stdout


def test_what_is_there_before_or_has_ended_is_not_a_leftover(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MARK, "of another")
    over = threading.Event()
    before = threading.Thread(target=over.wait)
    before.start()
    leftovers = Leftovers()
    after = threading.Thread(target=over.wait)
    after.start()
    with socket.create_server(("127.0.0.1", 0)):
        assert len(leftovers.found()) == 2
    over.set()
    for thread in (before, after):
        thread.join()
    assert leftovers.none()
