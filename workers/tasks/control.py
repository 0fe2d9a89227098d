"""Celery's remote control of a worker.

Celery keeps its control commands in one registry for the whole process. They are registered when a worker of
ours starts, and commands for any other app go on to the ones that were there before.
"""

from __future__ import annotations

import logging
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from celery.worker.control import Panel, control_command, inspect_command

from dispatcher.errors import LedgerUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery import Celery
    from celery.worker.control import ControlDispatch

    from workers.engine.engine import Load
    from workers.tasks.cancellations import Cancellations

__all__ = ["DESCRIBE", "register"]

DESCRIBE = "describe_dispatcher"

logger = logging.getLogger(__name__)


def register(app: Celery, cancellations: Cancellations, load: Callable[[], Load]) -> None:
    """Replace `revoke` and `terminate` for this app: they cancel plans, and leave other tasks to Celery.

    `load` says what the worker is at, for `describe_dispatcher`.
    """
    builtin_revoke, builtin_terminate = Panel.data["revoke"], Panel.data["terminate"]

    @control_command(name="revoke", variadic="task_id", signature="[id1 [id2 [... [idN]]]]")  # type: ignore[untyped-decorator]
    def revoke(state: ControlDispatch, task_id: Any, terminate: bool = False, **options: Any) -> Any:  # noqa: FBT001, FBT002
        """Revoke tasks by id (or list of ids). A plan is cancelled: its fault is stopped."""
        if state.app is not app:
            return builtin_revoke(state, task_id, terminate=terminate, **options)
        return _revoke(
            cancellations,
            task_id,
            lambda others: builtin_revoke(state, others, terminate=terminate, **options),
        )

    @control_command(  # type: ignore[untyped-decorator]
        name="terminate",
        variadic="task_id",
        args=[("signal", str)],
        signature="<signal> [id1 [id2 [... [idN]]]]",
    )
    def terminate(state: ControlDispatch, signal: Any, task_id: Any, **options: Any) -> Any:
        """Terminate tasks by id (or list of ids). A plan is cancelled: its fault is stopped."""
        if state.app is not app:
            return builtin_terminate(state, signal, task_id, **options)
        return _revoke(
            cancellations, task_id, lambda others: builtin_terminate(state, signal, others, **options)
        )

    @inspect_command(name=DESCRIBE)  # type: ignore[untyped-decorator]
    def describe(state: ControlDispatch, **_: Any) -> dict[str, Any]:
        """Its version, the queues that it consumes, its threads and what they are at."""
        queues = state.consumer.task_consumer.queues if state.consumer else ()
        about = {"version": version("fault-dispatcher"), "queues": [queue.name for queue in queues]}
        threads = state.consumer.pool.limit if state.consumer else None
        return about | {"threads": threads} | load()._asdict()


def _revoke(
    cancellations: Cancellations, task_id: Any, builtin: Callable[[list[str]], Any]
) -> dict[str, str]:
    """Cancel the plans among the tasks, and pass the others on."""
    ids = [str(each) for each in task_id] if isinstance(task_id, list | tuple | set) else [str(task_id)]
    try:
        answers = cancellations.cancel(ids)
    except LedgerUnavailableError as exc:
        logger.warning("plans among %s are cancelled once Redis answers: %s", ", ".join(ids), exc)
        builtin(ids)
        return {"ok": f"plans among them are cancelled once Redis answers: {exc}"}
    plans = [each for each, answer in zip(ids, answers, strict=True) if answer is not None]
    others = [each for each in ids if each not in plans]
    if others:
        logger.info("tasks %s are not plans: Celery revokes them", ", ".join(others))
        builtin(others)
    return {
        "ok": f"plans cancelled: {', '.join(plans) or 'none'}; "
        f"other tasks revoked: {', '.join(others) or 'none'}"
    }
