"""A real Prometheus, and its promtool."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import requests
from support.processes import Process
from support.programs import program
from support.redis_server import free_port

if TYPE_CHECKING:
    from pathlib import Path


class Prometheus(Process):
    """On a free loopback port, with the given configuration."""

    def __init__(self, folder: Path, configuration: str) -> None:
        (folder / "prometheus.yml").write_text(configuration)
        port = free_port()
        options = [f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
        command = [program("prometheus"), *options, f"--web.listen-address=127.0.0.1:{port}"]
        super().__init__(command, folder / "log")
        self.url = f"http://127.0.0.1:{port}"
        self.wait_until(self._ready)

    def query(self, expression: str) -> list[Any]:
        """The samples of an instant vector. An expression that it does not take fails the test."""
        answer = requests.get(f"{self.url}/api/v1/query", params={"query": expression}, timeout=60).json()
        assert answer["status"] == "success", (expression, answer)
        return list(answer["data"]["result"])

    def rules(self) -> list[Any]:
        """What it evaluates, and how that goes."""
        answer = requests.get(f"{self.url}/api/v1/rules", timeout=60).json()
        return [rule for group in answer["data"]["groups"] for rule in group["rules"]]

    def _ready(self) -> bool:
        try:
            return requests.get(f"{self.url}/-/ready", timeout=1).ok
        except requests.ConnectionError:
            return False
