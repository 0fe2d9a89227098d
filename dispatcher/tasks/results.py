"""A plan's result as Celery's Redis backend stores it, so that any Celery client can read it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

import celery.backends.redis
import kombu.transport.redis  # noqa: F401 (now, so that it does not hold up the event loop that makes a Dispatcher)
from celery import states
from pydantic_core import to_json

from dispatcher.errors import ExecutorClientError, PlanCancelledError
from dispatcher.stored_errors import as_known
from dispatcher.tasks.stored_results import StoredResults

if TYPE_CHECKING:
    from celery import Celery

    from dispatcher.observations import RawObservation

__all__ = ["ResultCodec"]

NO_MORE: dict[str, Any] = {"traceback": None, "children": []}
"""What the backend stores of any task, and plans lack."""


def _state(outcome: object) -> str:
    """What Celery calls such an end."""
    if isinstance(outcome, PlanCancelledError):
        return cast("str", states.REVOKED)
    return cast("str", states.FAILURE if isinstance(outcome, Exception) else states.SUCCESS)


class ResultCodec(StoredResults):
    """Writes and reads what `AsyncResult(plan_id)` sees, by the backend's own methods."""

    def __init__(self, app: Celery) -> None:
        super().__init__(app.conf["result_backend_transport_options"]["global_keyprefix"])
        self._backend = cast("celery.backends.redis.RedisBackend", app.backend)

    def encode(self, plan_id: str, outcome: RawObservation | Exception) -> str:
        """The outcome of a plan as the backend's JSON."""
        ended = {"status": _state(outcome), **NO_MORE, "date_done": datetime.now(UTC).isoformat()}
        meta = {"task_id": plan_id} | ended  # see `StoredResults.is_end`
        if isinstance(outcome, Exception):
            return self._encode_error(meta, outcome)
        return f'{to_json(meta).decode()[:-1]},"result":{outcome.model_dump_json()}}}'

    def encode_retry(self, plan_id: str, cause: ExecutorClientError) -> str:
        """Why a plan is retried, as the backend's JSON."""
        meta = {"status": states.RETRY, **NO_MORE, "date_done": None, "task_id": plan_id}
        return self._encode_error(meta, cause)

    def _encode_error(self, meta: dict[str, Any], error: Exception) -> str:
        error = as_known(error) if isinstance(error, ExecutorClientError) else error
        result = self._backend.encode_result(error, meta["status"])
        return cast("str", self._backend.encode(meta | {"result": result}))
