"""The parts of one worker process, built from the settings and put together."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from celery import signals
from celery.worker import state

from dispatcher.errors import LedgerUnavailableError
from dispatcher.ledger.connection import impatient_client, worker_client
from dispatcher.ledger.leases import Leases
from dispatcher.ledger.ledger import connect
from dispatcher.ledger.presence import connection_name
from dispatcher.tasks.messages import RUN_PLAN
from dispatcher.tasks.results import ResultCodec
from workers.breaker.shared import SharedBreaker
from workers.engine.engine import Engine
from workers.engine.executor import PlanExecutor
from workers.engine.gateway import Gateway, open_gateway
from workers.health import HealthCheck, HealthMonitor
from workers.orphans import remove_orphans
from workers.tasks.announcements import CeleryAnnouncer
from workers.tasks.cancellations import Cancellations

if TYPE_CHECKING:
    from celery.apps.worker import Worker

    from dispatcher.settings.settings import Settings
    from workers.engine.engine import Load

__all__ = ["WorkerParts"]

logger = logging.getLogger(__name__)


class WorkerParts:
    """Engine and health monitor of one Celery worker. Nothing runs before `start`."""

    def __init__(self, worker: Worker, settings: Settings) -> None:
        """Raises `InvalidSettingsError` if a driver refuses its settings."""
        self._worker = worker
        self._settings = settings
        self._task = worker.app.tasks[RUN_PLAN]
        self.ledger = connect(settings)
        self.cancellations = Cancellations(self.ledger)
        self._quick_client = impatient_client(settings)
        self._lease_client = worker_client(settings, connection_name(settings, worker.hostname))
        self._gateways = {name: self._open(name) for name in settings.executors}
        self._breakers = {
            name: SharedBreaker(self._quick_client, settings.key_prefix, name, gateway.rules)
            for name, gateway in self._gateways.items()
        }
        reaches = {name: gateway.driver.reach for name, gateway in self._gateways.items()}
        self._engine = self._make_engine(Leases(self._lease_client, settings, reaches))
        self._monitor = HealthMonitor(map(self._health_check, self._gateways.values()))

    def start(self) -> None:
        """Begin to carry plans out."""
        self._task.engine, self._task.hub = self._engine, self._worker.hub
        self._task.cancel = self._cancel
        self.cancellations.start()
        self._engine.start()
        self._monitor.start()
        signals.task_received.connect(self._claim_ahead, weak=False, dispatch_uid=self)

    @property
    def load(self) -> Load:
        """What the worker is at."""
        return self._engine.load

    def stop(self) -> None:
        """End: steps under way are finished, all else goes back to the ledger."""
        signals.task_received.disconnect(dispatch_uid=self)
        self._monitor.stop()
        self.cancellations.stop()
        self._engine.stop()
        for gateway in self._gateways.values():
            gateway.close()
        self._lease_client.close()
        self._quick_client.close()
        self.ledger.close()

    def _claim_ahead(self, request: Any, **_: Any) -> None:
        """A message has arrived: have the lease ready for the task's body. A retry waits for its time."""
        if request.task is not self._task:
            return
        if request.id in state.revoked or request.has_revoked_stamp:
            self._cancel(request.id)
        request.send_received()
        if request.named is not None:
            self._engine.fetcher.name(request.named)

    def _cancel(self, plan_id: str) -> None:
        """Cancel a plan that was revoked before it was submitted, or by a stamp of its message."""
        try:
            self.cancellations.cancel([plan_id])
        except LedgerUnavailableError as exc:
            logger.warning("plan %s is cancelled once Redis answers: %s", plan_id, exc)

    def _open(self, name: str) -> Gateway:
        return open_gateway(
            name,
            self._settings.executors[name],
            self._settings.services,
            connections=self._worker.concurrency,
            poll_ms=round(self._settings.worker.poll_interval_sec * 1000),
        )

    def _make_engine(self, leases: Leases) -> Engine:
        return Engine(
            leases,
            PlanExecutor(leases, self._gateways, self._breakers),
            ResultCodec(self._worker.app),
            self._breakers,
            CeleryAnnouncer(self._worker, self._task),
            threads=self._worker.concurrency,
            share=self._settings.worker.executor_share,
            submit=lambda run, lease: self._worker.pool.apply_async(run, (lease,), callback=_nothing),
        )

    def _health_check(self, gateway: Gateway) -> HealthCheck:
        interval_s = self._settings.executors[gateway.name].health_check_interval_sec
        key, breaker = self.ledger.health_key(gateway.name), self._breakers[gateway.name]
        return HealthCheck(
            self._quick_client,
            key,
            gateway.driver,
            breaker,
            interval_s=interval_s,
            follow_up=partial(remove_orphans, gateway.driver, self.ledger, gateway.driver.longest_call_s),
        )


def _nothing(_: object) -> None:
    """A due plan's step has announced everything itself."""
