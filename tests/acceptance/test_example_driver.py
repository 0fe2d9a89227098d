"""The example driver of the documentation, as a package that is installed next to the dispatcher."""

from __future__ import annotations

import json
import shutil
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.eventually import eventually
from support.loopback import LoopbackServer
from support.plans import abort_plan

from dispatcher import FaultFailedError, FaultLostError, PlanCancelledError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.loopback import Answer
    from support.processes import Workers

    from dispatcher import Dispatcher

EXAMPLE = Path(__file__).parents[2] / "docs" / "example-driver"


class RpcExecutor(LoopbackServer):
    """A JSON-RPC Executor whose faults are over when they are asked for a second time."""

    def __init__(self) -> None:
        self.faults: dict[str, dict[str, Any]] = {}
        self.looks: dict[str, int] = {}
        self.removed: list[str] = []

    def answer_bytes(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        asked = json.loads(body)
        answer = {"jsonrpc": "2.0", "id": asked["id"]} | self.call(asked["method"], asked["params"])
        return 200 if path == "/v2/rpc" else 404, json.dumps(answer).encode(), "application/json"

    def call(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        if method == "inject":
            if params["fault"]["service"] == "Broken":
                return {"error": {"code": -32000, "message": "no such proxy"}}
            self.faults[params["key"]] = params["fault"]
            return {"result": params["key"]}
        if method == "ping":
            return {"result": "pong"}
        return self.about(method, params)

    def about(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        if params["id"] not in self.faults:
            return {"error": {"code": -32004, "message": "unknown fault"}}
        if method == "remove":
            self.removed.append(params["id"])
            return {"result": True}
        if method == "is_on":
            forgetful = self.faults[params["id"]]["service"] == "Forgetful"
            return {"error": {"code": -32004, "message": "unknown fault"}} if forgetful else {"result": False}
        return {"result": {"status_code": 503, "latency_ms": 2.0, "error_rate": 0.5, "requests": 10}}


@pytest.fixture
def executor() -> Iterator[RpcExecutor]:
    with RpcExecutor() as executor:
        yield executor


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A folder on the path that holds what an installation of the package would put there."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    shutil.copy(EXAMPLE / "jsonrpc_driver.py", tmp_path)
    info = tmp_path / "jsonrpc_driver-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: 1.0\n")
    lines = [
        f"[{group}]\n" + "".join(f"{name} = {target}\n" for name, target in entries.items())
        for group, entries in project["entry-points"].items()
    ]
    (info / "entry_points.txt").write_text("\n".join(lines))
    return tmp_path


def test_a_driver_from_another_package_carries_plans_out(
    dispatcher: Dispatcher, start: Workers, executor: RpcExecutor, installed: Path
) -> None:
    config = installed / "settings.toml"
    config.write_text('[executors.default]\ndriver = "jsonrpc"\ndriver_options = {path = "/v2/rpc"}\n')
    start(executor.url, PYTHONPATH=str(installed), DISPATCHER_CONFIG=str(config))
    good = dispatcher.submit(abort_plan())
    broken = dispatcher.submit(abort_plan(service="Broken"))
    forgetful = dispatcher.submit(abort_plan(service="Forgetful"))
    endless = dispatcher.submit(abort_plan(service="Endless", duration_seconds=600))
    assert (good.result(60).error_rate, good.result(0).execution_id) == (0.5, good.id)
    assert executor.faults[good.id]["abort_http_status"] == 503
    with pytest.raises(FaultFailedError, match="no such proxy"):
        broken.result(60)
    with pytest.raises(FaultLostError, match="unknown fault"):
        forgetful.result(60)
    eventually(lambda: endless.id in executor.faults)
    endless.cancel()
    with pytest.raises(PlanCancelledError):
        endless.result(60)
    assert executor.removed == [forgetful.id, endless.id]
    assert dispatcher.check_health()


def test_the_example_is_under_65_lines() -> None:
    texts = [path.read_text() for path in EXAMPLE.iterdir() if path.is_file()]
    assert sum(text.count("\n") for text in texts) < 65
