"""Results of plans, read without Celery: few programs that read them send its messages."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from dispatcher import errors
from dispatcher.errors import ExecutorClientError, RecordUnreadableError
from dispatcher.observations import RawObservation
from dispatcher.settings.validation import in_words
from dispatcher.stored_errors import restore

__all__ = ["StoredResults", "global_prefix"]

LONGEST_FOREIGN_ERROR = 1_000
KEY = "celery-task-meta-"
"""What Celery's backends put before the id of a task, behind the prefix that is configured."""

BEGINNING = '{"task_id":'
"""How the results of ended plans begin. Those that Celery itself stores begin with the state."""

SUCCESS, FAILURE, REVOKED = "SUCCESS", "FAILURE", "REVOKED"
"""The states in which Celery's backends store a result."""


def global_prefix(key_prefix: str) -> str:
    """What the keys of a fleet's results begin with. `key_prefix` is the setting."""
    return f"{{{key_prefix}}}:"


class StoredResults:
    """Reads what Celery's Redis backend has stored of a plan."""

    def __init__(self, prefix: str) -> None:
        """`prefix` is what `global_prefix` returns."""
        self._key = prefix + KEY

    def key(self, plan_id: str) -> str:
        """The Redis key of a plan's result."""
        return self._key + plan_id

    @staticmethod
    def is_end(stored: str) -> bool:
        """Whether the result is surely what a plan has ended with. The plan's record knows of any other."""
        return stored.startswith(BEGINNING)

    def decode(self, plan_id: str, stored: str) -> RawObservation:
        """The observation in a stored result. Raises the error that is stored in its place.

        What is stored is data: nothing that it names is imported or called, and only errors of
        `dispatcher.errors` are raised. Raises `RecordUnreadableError` if it cannot be read.
        """
        try:
            meta = _Meta.model_validate_json(stored)
            succeeded = meta.status == SUCCESS
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
    if meta.status not in {FAILURE, REVOKED}:
        raise ValueError(f"its state is {meta.status!r}")
    stored = _StoredError.model_validate(meta.result)
    if stored.exc_module == errors.__name__:
        return restore(stored.exc_type, stored.exc_message)
    arguments = ", ".join(map(repr, stored.exc_message))
    text = f"{stored.exc_module}.{stored.exc_type}({arguments})"[:LONGEST_FOREIGN_ERROR]
    shown = text if text.isprintable() else repr(text)
    return ExecutorClientError(f"plan {plan_id} ended with an error of another program: {shown}")
