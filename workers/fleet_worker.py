"""A Celery worker that keeps to itself."""

from __future__ import annotations

import logging
import warnings
from typing import Any

from celery.apps.worker import Worker, install_worker_term_handler

from dispatcher.trace_export import export_traces

__all__ = ["FleetWorker"]

logger = logging.getLogger(__name__)


class FleetWorker(Worker):  # type: ignore[misc]  # celery ships no types
    """No gossip and no mingling: workers share the ledger, and need to know nothing of each other.

    Celery has command-line options for these, but no settings.
    """

    logs_only = False
    """Whether it prints nothing but its log: no banner, and no farewell."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{**options, "without_gossip": True, "without_mingle": True})

    def on_before_init(self, quiet: bool = False, **options: Any) -> None:  # noqa: FBT001, FBT002 (the base class's)
        with warnings.catch_warnings(record=True) as self._warnings:  # for there is no log yet
            super().on_before_init(quiet=quiet or self.logs_only, **options)

    def on_start(self) -> None:
        """Its log is set up by now."""
        for each in self._warnings:
            warnings.showwarning(each.message, each.category, each.filename, each.lineno)
        self._flush_traces = export_traces("fault-dispatcher-worker")
        super().on_start()

    def install_platform_tweaks(self, worker: Worker) -> None:
        super().install_platform_tweaks(worker)
        if self.logs_only:
            install_worker_term_handler(worker, verbose=False)

    def on_close(self) -> None:
        logger.info("%s stops, once its steps are done", self.hostname)
        super().on_close()

    def on_stopped(self) -> None:
        super().on_stopped()
        self._flush_traces()
