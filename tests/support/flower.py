"""A real Flower."""

from __future__ import annotations

from typing import TYPE_CHECKING

import requests
from support.processes import WarmProcess
from support.redis_server import free_port

from dispatcher.devstack.stack import FLOWER_COLUMNS

if TYPE_CHECKING:
    from pathlib import Path


class Flower(WarmProcess):
    """Started with the environment's settings and FLOWER_BASIC_AUTH."""

    def __init__(self, log: Path, environment: dict[str, str], *, warm: bool = True) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        user, _, password = environment["FLOWER_BASIC_AUTH"].partition(":")
        self.login = (user, password)
        command = ["celery", "--app", "workers.app", "flower", "--address=127.0.0.1"]
        command += [f"--port={port}", f"--tasks-columns={FLOWER_COLUMNS}", "--read-only"]
        super().__init__(command, log, environment, warm=warm)
        self.wait_until(self._sees_a_worker)

    def tasks(self) -> dict[str, dict[str, object]]:
        """All tasks as it shows them to programs, by id."""
        return dict(requests.get(f"{self.url}/api/tasks", auth=self.login, timeout=60).json())

    def page(self, path: str) -> str:
        """What it shows at this path."""
        answer = requests.get(f"{self.url}/{path}", auth=self.login, timeout=60)
        answer.raise_for_status()
        return answer.text

    def _sees_a_worker(self) -> bool:
        try:
            answer = requests.get(f"{self.url}/api/workers", auth=self.login, timeout=60)
        except requests.ConnectionError:
            return False
        return answer.ok and bool(answer.json())
