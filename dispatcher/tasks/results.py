"""A plan's result as Celery's Redis backend stores it, so that any Celery client can read it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

import celery.backends.redis
import kombu.transport.redis  # noqa: F401 (now, so that it does not hold up the event loop that makes a Dispatcher)
from celery import states
from pydantic import BaseModel
from pydantic_core import to_json

from dispatcher import errors
from dispatcher.errors import ExecutorClientError, PlanCancelledError, RecordUnreadableError
from dispatcher.observations import RawObservation
from dispatcher.settings.validation import in_words
from dispatcher.stored_errors import restore

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["ResultCodec"]

LONGEST_FOREIGN_ERROR = 1_000


def _state(outcome: object) -> str:
    """What Celery calls such an end."""
    if isinstance(outcome, PlanCancelledError):
        return cast("str", states.REVOKED)
    return cast("str", states.FAILURE if isinstance(outcome, Exception) else states.SUCCESS)


class ResultCodec:
    """Writes and reads what `AsyncResult(plan_id)` sees."""

    def __init__(self, app: Celery) -> None:
        self._backend = cast("celery.backends.redis.RedisBackend", app.backend)

    def key(self, plan_id: str) -> str:
        """The Redis key of a plan's result."""
        return cast("bytes", self._backend.get_key_for_task(plan_id)).decode()

    def encode(self, plan_id: str, outcome: RawObservation | Exception) -> str:
        """The outcome of a plan as the backend's JSON."""
        meta: dict[str, Any] = {
            "task_id": plan_id,
            "status": _state(outcome),
            "traceback": None,
            "children": [],
            "date_done": datetime.now(UTC).isoformat(),
        }
        if isinstance(outcome, Exception):
            error = self._backend.encode_result(outcome, meta["status"])
            return cast("str", self._backend.encode(meta | {"result": error}))
        return f'{to_json(meta).decode()[:-1]},"result":{outcome.model_dump_json()}}}'

    def decode(self, plan_id: str, stored: str) -> RawObservation:
        """The observation in a stored result. Raises the error that is stored in its place.

        What is stored is data: nothing that it names is imported or called, and only errors of
        `dispatcher.errors` are raised. Raises `RecordUnreadableError` if it cannot be read.
        """
        try:
            meta = _Meta.model_validate_json(stored)
            succeeded = meta.status == states.SUCCESS
            outcome = RawObservation.model_validate(meta.result) if succeeded else _error(plan_id, meta)
        except ValueError as exc:
            message = f"the result of plan {plan_id} cannot be read: {in_words(exc)}"
            raise RecordUnreadableError(message, plan_id) from exc
        if isinstance(outcome, ExecutorClientError):
            raise outcome
        return outcome


class _Meta(BaseModel):
    """What Celery's backends store of a task, as far as it is wanted here."""

    status: str
    result: Any


class _StoredError(BaseModel):
    """What they store of an exception."""

    exc_type: str
    exc_module: str | None
    exc_message: list[Any]


def _error(plan_id: str, meta: _Meta) -> ExecutorClientError:
    """Raises `ValueError` if there is none."""
    if meta.status not in {states.FAILURE, states.REVOKED}:
        raise ValueError(f"its state is {meta.status!r}")
    stored = _StoredError.model_validate(meta.result)
    if stored.exc_module == errors.__name__:
        return restore(stored.exc_type, stored.exc_message)
    arguments = ", ".join(map(repr, stored.exc_message))
    text = f"{stored.exc_module}.{stored.exc_type}({arguments})"[:LONGEST_FOREIGN_ERROR]
    shown = text if text.isprintable() else repr(text)
    return ExecutorClientError(f"plan {plan_id} ended with an error of another program: {shown}")
