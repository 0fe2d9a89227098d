"""Celery: the application, the one task's messages, and results. Celery is imported with the first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dispatcher.lazy import lazy_names as _lazy_names

if TYPE_CHECKING:
    from dispatcher.tasks.app import make_celery
    from dispatcher.tasks.messages import Publisher

__all__ = ["Publisher", "make_celery"]

if not TYPE_CHECKING:  # type checkers would take any name for one that exists
    __getattr__, __dir__ = _lazy_names(__name__, {"app": ("make_celery",), "messages": ("Publisher",)})
