"""Fails each test that leaves a process, a thread or a socket behind. It is a plugin of pytest.

What a fixture of a wider scope starts may stay until the fixture ends. While such a fixture serves from this
process, its threads and sockets come and go; what a test leaves among them is found when the fixture ends.
"""

from __future__ import annotations

import contextlib
import gc
import os
import socket
import threading
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.eventually import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _pytest.fixtures import FixtureDef  # pytest names it only there

MARK = "STARTED_BY_TESTS"
GONE_WITHIN_S = 20.0
PROC = Path("/proc")
HAS_PROC = (PROC / "self" / "environ").exists()
"""Elsewhere only threads are looked for."""


class Leftovers:
    """What there is beyond what was there before and what wider fixtures own."""

    def __init__(self) -> None:
        os.environ[MARK] = self._mark = uuid.uuid4().hex
        self._processes = _process_ids()
        self._threads = set(threading.enumerate())
        self._sockets = set(_sockets())
        self._serving: set[threading.Thread] = set()
        """Threads of wider fixtures."""

    def own(self) -> Iterator[None]:
        """All that is started meanwhile belongs to a wider fixture."""
        threads = set(threading.enumerate())
        yield
        self._processes |= _process_ids()
        self._serving |= set(threading.enumerate()) - threads
        if not self._serving:
            self._sockets |= set(_sockets())

    def found(self) -> list[str]:
        """Each of them as a person would look for it."""
        found = [f"process {number}: {command}" for number, command in self._new_processes()]
        self._serving = {thread for thread in self._serving if thread.is_alive()}
        if not self._serving:
            found += [f"thread {thread.name}" for thread in threading.enumerate() if self._is_new(thread)]
            found += [_ends(number) for inode, number in _sockets().items() if inode not in self._sockets]
        return found

    def none(self) -> bool:
        if not self.found():
            return True
        gc.collect()  # nothing refers to it any more
        return not self.found()

    def forgive(self) -> None:
        """Blame no other test for what there is now."""
        self._processes = _process_ids()
        if not self._serving:
            self._threads = set(threading.enumerate())
            self._sockets = set(_sockets())

    def _is_new(self, thread: threading.Thread) -> bool:
        return thread.is_alive() and thread not in self._threads

    def _new_processes(self) -> Iterator[tuple[int, str]]:
        for number in _process_ids() - self._processes:
            folder = PROC / str(number)
            try:
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                child = parent == os.getpid()
                environment = b"" if child else (folder / "environ").read_bytes()
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:  # it has just ended, or is none of ours
                self._processes.add(number)
                continue
            if child or f"{MARK}={self._mark}".encode() in environment.split(b"\0"):
                yield number, command or "ended, and its parent did not wait for it"
            elif environment:  # a process has none while it becomes another program
                self._processes.add(number)


def _process_ids() -> set[int]:
    if not HAS_PROC:
        return set()
    return {int(name) for name in os.listdir(PROC) if name.isdecimal()}  # noqa: PTH208 (ten times as fast)


def _sockets() -> dict[str, int]:
    """The open sockets of this process: inodes and file descriptors."""
    found = {}
    if HAS_PROC:
        for number in os.listdir("/proc/self/fd"):  # noqa: PTH208
            with contextlib.suppress(OSError):
                target = os.readlink(f"/proc/self/fd/{number}")  # noqa: PTH115
                if target.startswith("socket:"):
                    found[target] = int(number)
    return found


def _ends(number: int) -> str:
    """Between which addresses the socket is."""
    try:
        with socket.socket(fileno=os.dup(number)) as copy:
            return f"socket {copy.getsockname()} -> {copy.getpeername()}"
    except OSError:
        return f"socket without a peer: file descriptor {number}"


KEY = pytest.StashKey[Leftovers]()


def pytest_sessionstart(session: pytest.Session) -> None:
    session.config.stash[KEY] = Leftovers()


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: FixtureDef[Any], request: pytest.FixtureRequest) -> Iterator[None]:
    if fixturedef.scope == "function":
        return (yield)
    owned = request.config.stash[KEY].own()
    next(owned)
    result = yield
    next(owned, None)
    return result


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    result = yield
    leftovers = item.config.stash[KEY]
    found: list[str] = []
    try:
        eventually(leftovers.none, GONE_WITHIN_S)
    except AssertionError:
        found = leftovers.found()
        leftovers.forgive()
    if found:
        pytest.fail(f"left behind: {', '.join(found)}", pytrace=False)
    return result
