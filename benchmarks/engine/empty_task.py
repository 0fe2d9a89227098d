"""A Celery worker with our settings, and one task that does nothing: what a message costs."""

from __future__ import annotations

from typing import Any

from dispatcher.settings.settings import load_settings
from dispatcher.tasks.app import make_celery

app = make_celery(load_settings())


@app.task(name="benchmarks.nothing")  # type: ignore[untyped-decorator]
def nothing(*_: Any) -> None:
    """Return at once."""
