"""An observer that sends requests of its own to the target: before the fault, during it, and after it."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import quote

from dispatcher.errors import (
    ExecutorClientError,
    FaultLostError,
    InvalidPlanError,
    InvalidSettingsError,
)
from dispatcher.observations import RawObservation
from workers.drivers.transport import HttpTransport
from workers.observers.base import Phase, Seen

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dispatcher.ledger.record import PlanRecord
    from dispatcher.settings.executors import ProbeSettings, ServiceSettings

__all__ = ["ProbeObserver"]

SAFE = "/%:@!$&'()*+,;=~"
"""What a path may hold as it is (RFC 3986, 3.3)."""


class ProbeObserver:
    """Sends at most so many GETs a second to a target, all of a second's at once. See `Observer`."""

    every_s: float | None = 1.0

    def __init__(self, settings: ProbeSettings, services: Mapping[str, ServiceSettings]) -> None:
        """`services` are the addresses of the targets, by the names that plans use.

        Raises `InvalidSettingsError` for certificate files that cannot be used.
        """
        self._requests = settings.requests_per_sec
        self._targets = {
            name: _Target(name, service, settings.requests_per_sec) for name, service in services.items()
        }
        self.longest_look_s = max((target.longest_call_s for target in self._targets.values()), default=0.0)

    def sample(self, record: PlanRecord, phase: Phase, within_s: float) -> str:
        """Send one second's requests. Raises `InvalidPlanError` for a service that is not configured."""
        target = self._targets.get(record.plan.service)
        if target is None:
            problem = f"is not configured: add [services.{record.plan.service}] to the worker's settings"
            raise InvalidPlanError(f"service {record.plan.service} {problem}", [["service", problem]])
        seen = Seen.model_validate_json(record.seen or "{}")
        tally = seen.tally(phase)
        probe = partial(target.probe, record.plan.api, within_s)
        with ThreadPoolExecutor(self._requests) as pool:  # in the plan's trace, each of them
            answers = [pool.submit(copy_context().run, probe) for _ in range(self._requests)]
        for answer in answers:
            tally.add(*answer.result())
        return seen.model_dump_json()

    def observation(self, record: PlanRecord, within_s: float) -> RawObservation:
        """What the requests met. Raises `FaultLostError` if none was sent in time."""
        del within_s
        seen = Seen.model_validate_json(record.seen or "{}")
        during = seen.during
        if not during.requests:
            raise FaultLostError("no probe was sent while the fault was there")
        return RawObservation(
            execution_id=record.apply_id or record.id,
            timestamp=datetime.now(UTC),
            status_code=during.statuses.most_common(1)[0][0],
            latency_ms=during.mean_latency_ms,
            error_rate=during.errors / during.requests,
            success_count=during.requests - during.errors,
            error_count=during.errors,
            logs=[f"{phase} the fault: {seen.tally(phase)}" for phase in Phase],
        )

    def close(self) -> None:
        """Let go of all connections."""
        for target in self._targets.values():
            target.close()


class _Target:
    def __init__(self, name: str, service: ServiceSettings, connections: int) -> None:
        try:
            self._transport = HttpTransport(service, connections)
        except InvalidSettingsError as exc:
            raise exc.within(f"services.{name}") from exc
        self._headers = {"Host": service.host_header} if service.host_header else {}
        self.longest_call_s = self._transport.longest_call_s

    def probe(self, api: str, within_s: float) -> tuple[int, float]:
        """Status and latency in ms of one request. 0 for no answer."""
        path = quote(api, safe=SAFE)
        begun = time.monotonic()
        try:
            status = self._transport.call("GET", path, headers=self._headers, within_s=within_s).status
        except ExecutorClientError:
            status = 0
        return status, (time.monotonic() - begun) * 1000

    def close(self) -> None:
        self._transport.close()
