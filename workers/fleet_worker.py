"""A Celery worker that keeps to itself."""

from __future__ import annotations

from typing import Any

from celery.apps.worker import Worker

__all__ = ["FleetWorker"]


class FleetWorker(Worker):  # type: ignore[misc]  # celery ships no types
    """No gossip and no mingling: workers share the ledger, and need to know nothing of each other.

    Celery has command-line options for these, but no settings.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{**options, "without_gossip": True, "without_mingle": True})
