"""The Celery application of workers."""

from __future__ import annotations

import logging
from logging.handlers import MemoryHandler
from typing import TYPE_CHECKING, Any

from celery.signals import after_setup_logger, after_setup_task_logger, celeryd_init

from dispatcher.settings.settings import LogFormat
from dispatcher.tasks.app import make_celery
from workers.tasks.bootsteps import bootsteps_of
from workers.tasks.logging import structure
from workers.tasks.run_plan import RunPlan

if TYPE_CHECKING:
    from celery import Celery

    from dispatcher.settings.settings import Settings

__all__ = ["create_worker_app"]

MOST_EARLY = 100
"""Warnings that are kept until the logs are set up."""


def create_worker_app(settings: Settings) -> Celery:
    """An ordinary Celery app with the one task, `dispatcher.run_plan`. Nothing is opened or sent yet."""
    app = make_celery(settings)
    app.register_task(
        type(RunPlan.__name__, (RunPlan,), {"__module__": RunPlan.__module__})()
    )  # Celery binds apps to classes
    for blueprint, steps in bootsteps_of(settings).items():
        app.steps[blueprint].update(steps)
    _set_up_logs(app, settings)
    return app


def _set_up_logs(app: Celery, settings: Settings) -> None:
    """Give log lines their fields once a worker of this app starts. Other apps' workers keep their own."""

    early = MemoryHandler(MOST_EARLY)

    def set_up(instance: Any, **_: Any) -> None:
        if instance.app is not app:
            return
        if settings.logs.format is LogFormat.JSON:
            instance.quiet = True  # only log lines
            logging.captureWarnings(True)  # as Celery does once its logs are set up
            logging.getLogger("py.warnings").addHandler(early)
        after_setup_logger.connect(format_lines, weak=False, dispatch_uid=app)
        after_setup_task_logger.connect(format_lines, weak=False, dispatch_uid=app)

    def format_lines(logger: logging.Logger, format: str, colorize: bool, **_: Any) -> None:  # noqa: A002, FBT001 (celery's names)
        logging.getLogger("urllib3.connectionpool").setLevel(
            logging.INFO
        )  # at DEBUG it shows queries of URLs
        structure(logger, settings.logs.format, format, colorize=colorize)
        logging.getLogger("py.warnings").removeHandler(early)
        early.setTarget(logger.handlers[0] if logger.handlers else None)
        early.flush()

    celeryd_init.connect(set_up, weak=False, dispatch_uid=app)
