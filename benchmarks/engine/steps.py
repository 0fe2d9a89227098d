"""A worker's engine without Celery and without threads: each step runs in the calling thread."""

from __future__ import annotations

import itertools
import time
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from benchmarks.stage.plans import plan
from dispatcher import RawObservation
from dispatcher.ledger.connection import impatient_client, worker_client
from dispatcher.ledger.leases import Lease, Leases, Named
from dispatcher.ledger.ledger import Submission, connect
from dispatcher.ledger.record import Order
from dispatcher.tasks.app import make_celery
from dispatcher.tasks.results import ResultCodec
from workers.breaker.shared import SharedBreaker
from workers.drivers.base import Driver, FaultState, FaultStatus
from workers.engine import completer
from workers.engine.executor import PlanExecutor
from workers.engine.gateway import Gateway
from workers.engine.lease_keeper import LeaseKeeper

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from dispatcher import ExecutorClientConfig, FaultPlan, Settings
    from workers.engine.decisions import Decision

NUMBERS = itertools.count()


@dataclass
class ScriptedDriver(Driver):
    """An Executor whose applies call `on_apply`, and whose faults are completed at once."""

    on_apply: Callable[[], None] = lambda: None
    longest_call_s: float = 35.0

    def apply(self, plan: FaultPlan, key: str, within_s: float, not_after: datetime) -> str:
        """Call `on_apply`, which may raise."""
        del plan, within_s, not_after
        self.on_apply()
        return key

    def status(self, apply_id: str, within_s: float) -> FaultStatus:
        """The fault is completed."""
        del apply_id, within_s
        return FaultStatus(FaultState.COMPLETED)

    def metrics(self, apply_id: str, within_s: float) -> RawObservation:
        """An observation without traces."""
        del within_s
        return RawObservation(
            status_code=503,
            latency_ms=1.5,
            error_rate=1.0,
            trace_data=None,
            logs=[],
            execution_id=apply_id,
            timestamp=datetime.now(UTC),
        )

    def health(self, within_s: float) -> None:
        """It is up."""
        del within_s


class Steps:
    """Carries out steps of plans for the Executor `default`."""

    def __init__(self, settings: Settings, config: ExecutorClientConfig, driver: Driver) -> None:
        self.spent_us: dict[str, float] = {}
        """Processor time of the last group of steps, in microseconds, by what they consist of."""

        self._ledger = connect(settings)
        self._client = worker_client(settings)
        self._quick_client = impatient_client(settings)
        gateway = Gateway.of("default", config, driver, poll_ms=500)
        self._breaker = SharedBreaker(self._quick_client, settings.key_prefix, "default", gateway.rules)
        self._leases = Leases(self._client, settings)
        gateways, breakers = {"default": gateway}, {"default": self._breaker}
        self._executor = PlanExecutor(self._leases, gateways, breakers)
        results = ResultCodec(make_celery(settings))
        keeper = LeaseKeeper(self._leases)
        self._completer = completer.Completer(self._leases, keeper, results, breakers, written=_nothing)

    def close(self) -> None:
        """Close the connections to Redis."""
        for each in (self._ledger, self._client, self._quick_client):
            each.close()

    def submit(self, count: int) -> list[str]:
        """Submit plans of 1 s without messages. Returns their ids."""
        orders = {
            f"p{number}": Order(plan=plan(number), timeout_ms=30_000)
            for number in itertools.islice(NUMBERS, count)
        }
        self._ledger.submit([Submission(plan_id, order) for plan_id, order in orders.items()])
        return list(orders)

    def begin(self, plan_ids: Sequence[str]) -> list[Decision]:
        """Carry out the first step of each plan, as after its message."""
        with self._spending("claims"):
            named = self._leases.fetch([Named(plan_id, 0) for plan_id in plan_ids], 0).named
        return self._carry_out([each for each in named if isinstance(each, Lease)])

    def go_on(self, limit: int) -> list[Decision]:
        """Carry out the next step of this many due plans."""
        with self._spending("claims"):
            due = self._leases.fetch([], limit).due
        return self._carry_out(due)

    def _carry_out(self, leases: Sequence[Lease]) -> list[Decision]:
        with self._spending("decisions"):
            for lease in leases:
                self._breaker.note_at(lease.granted_at, *lease.breaker)
            executions = [self._executor.execute(lease) for lease in leases]
        with self._spending("results, encoded"):
            for lease, execution in zip(leases, executions, strict=True):
                self._completer.settle(lease, execution)
        with self._spending("settlements"):
            self._completer.turn()
        return [execution.decision for execution in executions]

    @contextmanager
    def _spending(self, what: str) -> Iterator[None]:
        begun_s = time.process_time()
        yield
        self.spent_us[what] = (time.process_time() - begun_s) * 1e6


def _nothing(*_: Any) -> None:
    """Nothing follows a settlement here."""
