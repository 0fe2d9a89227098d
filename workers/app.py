"""The Celery application of a worker: `celery -A workers.app worker`.

Everything that happens at import time in this package happens here.
"""

from __future__ import annotations

import logging

from dispatcher.celery_app import make_celery
from dispatcher.ledger import connect
from dispatcher.results import ResultCodec
from dispatcher.settings import ExecutorClientConfig, Settings, load_settings
from workers.drivers.faults_api import FaultsApiDriver
from workers.drivers.http import HttpTransport
from workers.fleet_worker import FleetWorker
from workers.plan_runner import PlanRunner
from workers.retry import RetryPolicy
from workers.steps import Steps
from workers.tasks import add_run_plan, take_in_reserve
from workers.waker import Waker, waker_step


def _runner(config: ExecutorClientConfig, settings: Settings) -> PlanRunner:
    transport = HttpTransport(config, connections=settings.worker.threads)
    poll_ms = round(settings.worker.poll_interval_sec * 1000)
    return PlanRunner(FaultsApiDriver(transport), RetryPolicy.of(config), poll_ms=poll_ms)


# Celery's own lines speak of messages, ours of plans: a step that parks its plan is no success.
for _chatty in ("celery.app.trace", "celery.worker.strategy"):
    logging.getLogger(_chatty).setLevel(logging.WARNING)

_settings = load_settings()
_ledger = connect(_settings)
_runners = {name: _runner(config, _settings) for name, config in _settings.executors.items()}

app = make_celery(_settings)
app.Worker = app.subclass_with_self(FleetWorker, name="Worker")
_waker = Waker(app, _ledger, _settings.waker, take=lambda plan_id: take_in_reserve(app, _steps, plan_id))
_steps: Steps = Steps(_ledger, ResultCodec(app), _runners, expect=_waker.expect)
app.steps["worker"].add(waker_step(_waker))
add_run_plan(app, _steps)
