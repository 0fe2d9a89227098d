"""A driver for an Executor whose API is JSON-RPC 2.0: `driver = "jsonrpc"`."""

from datetime import UTC, datetime
from typing import Any

from dispatcher import ExecutorClientConfig, FaultFailedError, FaultLostError, FaultPlan, RawObservation
from workers.drivers.base import Driver, FaultState
from workers.drivers.transport import HttpTransport

UNKNOWN_FAULT = -32004


class JsonRpcDriver(Driver):
    def __init__(self, config: ExecutorClientConfig, connections: int) -> None:
        self._transport = HttpTransport(config, connections)  # raises what a driver may raise
        self._path = str(config.driver_options.get("path", "/rpc"))
        self.longest_call_s = self._transport.longest_call_s

    def apply(self, plan: FaultPlan, key: str, within_s: float) -> str:
        fault = plan.model_dump(mode="json", exclude_none=True)
        return str(self._call("inject", within_s, key=key, fault=fault))

    def status(self, apply_id: str, within_s: float) -> FaultState:
        return FaultState.RUNNING if self._call("is_on", within_s, id=apply_id) else FaultState.COMPLETED

    def metrics(self, apply_id: str, within_s: float) -> RawObservation:
        seen = self._call("observed", within_s, id=apply_id)
        return RawObservation(execution_id=apply_id, timestamp=datetime.now(UTC), **seen)

    def health(self, within_s: float) -> None:
        self._call("ping", within_s)

    def stop(self, apply_id: str) -> bool:
        self._call("remove", self.longest_call_s, id=apply_id)
        return True

    def close(self) -> None:
        self._transport.close()

    def _call(self, method: str, within_s: float, **params: object) -> Any:
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        answer = self._transport.call("POST", self._path, body, within_s=within_s)
        fields = answer.json() if answer.ok else {}
        if "result" in fields:
            return fields["result"]
        error = fields.get("error")
        if error is None:
            raise answer.error() if not answer.ok else answer.protocol_error("has no result")
        kind = FaultLostError if error["code"] == UNKNOWN_FAULT else FaultFailedError
        raise kind(f"{method}: {error['message']}")
