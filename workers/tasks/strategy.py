"""How a worker takes a message: as Celery does, except that a broken message is rejected and dropped.

Celery's own strategy assumes a well-formed body. Its errors would restart the consumer, which puts the
message back into the queue: one broken message would restart every consumer for ever.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery.exceptions import InvalidTaskError
from celery.worker.strategy import default

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery import Celery, Task
    from celery.worker.consumer import Consumer
    from kombu import Message

__all__ = ["STRATEGY", "reject_broken"]

STRATEGY = f"{__name__}:reject_broken"
"""The value of a task's attribute `Strategy`."""


def reject_broken(task: Task, app: Celery, consumer: Consumer, **options: Any) -> Callable[..., None]:
    """Celery's default strategy for `task`, for any body of a message."""
    take = default(task, app, consumer, **options)

    def take_well_formed(message: Message, *args: Any, **more: Any) -> None:
        try:
            take(message, *args, **more)
        except (ValueError, TypeError, KeyError, AttributeError) as exc:
            raise InvalidTaskError(f"a message for {task.name} has the wrong shape: {exc!r}") from exc

    return take_well_formed
