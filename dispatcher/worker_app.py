"""The Celery application that `celery --app dispatcher.worker_app worker` starts.

It is the application of `workers.app`. Celery looks for modules in the working directory first, and a program
may have a package `workers` of its own there. This module takes the one that is installed.
"""

from __future__ import annotations

from dispatcher.own_packages import import_own

import_own("workers")

from workers.app import app  # noqa: E402 (the line above decides which `workers` it is)

__all__ = ["app"]
