"""The Celery application of a worker: `celery -A workers.app worker`.

Everything that happens at import time in this package happens here.
"""

from __future__ import annotations

import logging

from dispatcher.celery_app import make_celery
from dispatcher.ledger import connect, impatient_client
from dispatcher.results import ResultCodec
from dispatcher.settings import ExecutorClientConfig, Settings, load_settings
from workers.background import background_step
from workers.breaker import SharedBreaker
from workers.breaker_rules import BreakerRules
from workers.drivers.faults_api import FaultsApiDriver
from workers.drivers.http import HttpTransport
from workers.fleet_worker import FleetWorker
from workers.health import HealthCheck, HealthMonitor
from workers.plan_runner import PlanRunner
from workers.steps import Channel, Steps, longest_step_s
from workers.tasks import add_run_plan, take_in_reserve
from workers.waker import Waker


def _channel(name: str, config: ExecutorClientConfig, settings: Settings) -> Channel:
    driver = FaultsApiDriver(HttpTransport(config, connections=settings.worker.threads))
    rules = BreakerRules.of(config, lease_s=longest_step_s(driver))
    breaker = SharedBreaker(_quick_client, settings.key_prefix, name, rules)
    runner = PlanRunner(config, poll_ms=round(settings.worker.poll_interval_sec * 1000))
    return Channel(driver, breaker, runner)


def _health_check(name: str, channel: Channel) -> HealthCheck:
    interval_s = _settings.executors[name].health_check_interval_sec
    key = _ledger.health_key(name)
    return HealthCheck(_quick_client, key, channel.driver, channel.breaker, interval_s=interval_s)


# Celery's own lines speak of messages, ours of plans: a step that parks its plan is no success.
for _chatty in ("celery.app.trace", "celery.worker.strategy"):
    logging.getLogger(_chatty).setLevel(logging.WARNING)

_settings = load_settings()
_ledger = connect(_settings)
_quick_client = impatient_client(_settings)
_channels = {name: _channel(name, config, _settings) for name, config in _settings.executors.items()}

app = make_celery(_settings)
app.Worker = app.subclass_with_self(FleetWorker, name="Worker")
_waker = Waker(app, _ledger, _settings.waker, take=lambda plan_id: take_in_reserve(app, _steps, plan_id))
_steps: Steps = Steps(_ledger, ResultCodec(app), _channels, expect=_waker.expect)
_monitor = HealthMonitor(_health_check(name, channel) for name, channel in _channels.items())
app.steps["worker"].update([background_step(_waker), background_step(_monitor)])
add_run_plan(app, _steps)
