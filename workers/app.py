"""The Celery application that `celery --app workers.app worker` starts."""

from __future__ import annotations

import sys

import click

try:
    from dispatcher.errors import InvalidSettingsError
    from dispatcher.settings.settings import load_settings
    from workers.tasks.app import create_worker_app
except ModuleNotFoundError as exc:
    found = getattr(sys.modules.get("dispatcher"), "__file__", None)
    if exc.name != "dispatcher.errors" or found is None:
        raise
    problem = f"{found} is in the way: fault-dispatcher needs this name. `dispatcher worker` passes over it"
    if click.get_current_context(silent=True) is None:
        raise ImportError(problem) from exc
    print(f"error: {problem}", file=sys.stderr)  # noqa: T201 (for the person who runs a command of Celery's)
    sys.exit(2)

__all__ = ["app"]

try:
    app = create_worker_app(load_settings())
except InvalidSettingsError as exc:
    if click.get_current_context(silent=True) is None:
        raise
    for line in exc.lines:  # for the person who runs a command of Celery's
        print(f"error: {line}", file=sys.stderr)  # noqa: T201
    sys.exit(exc.exit_code)
app.set_current()
