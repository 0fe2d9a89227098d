"""What a worker reports of itself over Celery's remote control."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from celery.worker.control import inspect_command

if TYPE_CHECKING:
    from celery.worker.control import ControlDispatch

__all__ = ["DESCRIBE"]

DESCRIBE = "describe_dispatcher"


@inspect_command(name=DESCRIBE)  # type: ignore[untyped-decorator]  # celery ships no types
def describe(state: ControlDispatch, **_: Any) -> dict[str, Any]:
    """Its version, and the queues that it consumes."""
    queues = state.consumer.task_consumer.queues if state.consumer else ()
    return {"version": version("fault-dispatcher"), "queues": [queue.name for queue in queues]}
