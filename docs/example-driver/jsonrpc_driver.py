"""A driver for an Executor whose API is JSON-RPC 2.0: `driver = "jsonrpc"`."""

from datetime import UTC, datetime
from typing import Any

from dispatcher import ExecutorClientConfig, FaultFailedError, FaultLostError, FaultPlan, RawObservation
from workers.drivers.base import Driver, FaultState, FaultStatus, StopOutcome
from workers.drivers.options import DriverOptions, read_options
from workers.drivers.transport import HttpTransport

ERRORS = {-32004: FaultLostError}


class Options(DriverOptions):
    path: str = "/rpc"


class JsonRpcDriver(Driver):
    def __init__(self, config: ExecutorClientConfig, connections: int) -> None:
        self._path = read_options(config, Options).path
        self._transport = HttpTransport(config, connections)  # raises what a driver may raise
        self.longest_call_s = self._transport.longest_call_s

    def apply(self, plan: FaultPlan, key: str, within_s: float, not_after: datetime) -> str:
        fault = plan.model_dump(mode="json", exclude_none=True)
        return str(self._call("inject", within_s, key=key, fault=fault, not_after=not_after.isoformat()))

    def status(self, apply_id: str, within_s: float) -> FaultStatus:
        on = self._call("is_on", within_s, id=apply_id)
        return FaultStatus(FaultState.RUNNING if on else FaultState.COMPLETED)

    def metrics(self, apply_id: str, within_s: float) -> RawObservation:
        seen = self._call("observed", within_s, id=apply_id)
        return RawObservation(execution_id=apply_id, timestamp=datetime.now(UTC), **seen)

    def close(self) -> None:
        self._transport.close()

    def health(self, within_s: float) -> None:
        self._call("ping", within_s)

    def stop(self, apply_id: str) -> StopOutcome:
        gone = self._call("remove", self.longest_call_s, id=apply_id)
        return StopOutcome.OVER if gone is True else StopOutcome.UNCONFIRMED

    def _call(self, method: str, within_s: float, **params: object) -> Any:
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        answer = self._transport.call("POST", self._path, body, within_s=within_s)
        fields = answer.json() if answer.ok else {}
        if "result" in fields:
            return fields["result"]
        if "error" not in fields:
            raise answer.protocol_error("has no result") if answer.ok else answer.error()
        kind = ERRORS.get(fields["error"]["code"], FaultFailedError)
        raise kind(f"{method}: {fields['error']['message']}")
