"""The Celery application of a worker: `celery -A workers.app worker`.

Everything that happens at import time in this package happens here.
"""

from __future__ import annotations

import gc
import logging
import sys
from typing import Any

from celery.signals import after_setup_logger, after_setup_task_logger

from dispatcher.celery_app import make_celery
from dispatcher.connection import impatient_client
from dispatcher.errors import InvalidSettingsError
from dispatcher.ledger import connect
from dispatcher.results import ResultCodec
from dispatcher.settings import LogFormat, load_settings
from workers import control as _control  # noqa: F401 (registers what a worker tells of itself)
from workers.background import background_step
from workers.breaker import SharedBreaker
from workers.bursts import fetch_in_bursts
from workers.channel import Channel, open_channel
from workers.combining import CombinedScripts
from workers.fleet_worker import FleetWorker
from workers.health import HealthCheck, HealthMonitor
from workers.logs import structure
from workers.one_core import OneCore
from workers.steps import Steps
from workers.tasks import RunPlan, take_in_reserve
from workers.waker import Waker


def _open(name: str) -> Channel:
    return open_channel(
        name,
        _settings.executors[name],
        _settings.services,
        connections=_settings.worker.threads,
        poll_ms=round(_settings.worker.poll_interval_sec * 1000),
    )


def _health_check(channel: Channel) -> HealthCheck:
    interval_s = _settings.executors[channel.name].health_check_interval_sec
    key, breaker = _ledger.health_key(channel.name), _breakers[channel.name]
    return HealthCheck(_quick_client, key, channel.driver, breaker, interval_s=interval_s)


@after_setup_logger.connect  # type: ignore[untyped-decorator]  # celery ships no types
@after_setup_task_logger.connect  # type: ignore[untyped-decorator]
def _structure(logger: logging.Logger, format: str, colorize: bool, **_: Any) -> None:  # noqa: A002, FBT001 (celery's names)
    structure(logger, _settings.logs.format, format, colorize=colorize)


# Celery's own lines speak of messages, ours of plans: a step that parks its plan is no success.
for _chatty in ("celery.app.trace", "celery.worker.strategy"):
    logging.getLogger(_chatty).setLevel(logging.WARNING)

try:
    _settings = load_settings()
    _channels = {name: _open(name) for name in _settings.executors}
except InvalidSettingsError as exc:
    for line in exc.lines:
        print(f"error: {line}", file=sys.stderr)  # noqa: T201 (for whoever starts the worker)
    sys.exit(exc.exit_code)
_ledger = connect(_settings, CombinedScripts)
_quick_client = impatient_client(_settings)
_breakers = {
    name: SharedBreaker(_quick_client, _settings.key_prefix, name, channel.rules)
    for name, channel in _channels.items()
}

fetch_in_bursts()
app = make_celery(_settings)
app.Worker = app.subclass_with_self(
    FleetWorker, name="Worker", logs_only=_settings.logs.format is LogFormat.JSON
)
_waker = Waker(_ledger, _settings.waker, take=lambda plan_id: take_in_reserve(app, _steps, plan_id))
_steps: Steps = Steps(_ledger, ResultCodec(app), _channels, _breakers, expect=_waker.expect)
_monitor = HealthMonitor(map(_health_check, _channels.values()))
app.steps["worker"].update([background_step(_waker), background_step(_monitor)])
if _settings.worker.one_core:
    app.steps["worker"].add(background_step(OneCore()))
app.register_task(RunPlan(_steps))

# A step leaves little garbage in cycles behind, and a worker's many modules none. To look through all of it
# after each 700 new objects, as Python does by default, costs a tenth of the processor time.
gc.freeze()
gc.set_threshold(20_000, 20, 50)
