"""The Recommender's side: submit plans, and get their observations."""

from __future__ import annotations

import re
import uuid
from typing import TYPE_CHECKING, Self

from dispatcher.celery_app import make_celery, publish
from dispatcher.errors import InvalidPlanError, PlanUnknownError, ResultTimeoutError
from dispatcher.ledger import WakeUp, connect
from dispatcher.record import budget_ms
from dispatcher.results import ResultCodec
from dispatcher.settings import Settings, load_settings

if TYPE_CHECKING:
    from dispatcher.ledger import Ledger
    from dispatcher.models import FaultPlan, PlanStatus, RawObservation

__all__ = ["Dispatcher", "PlanHandle"]

PLAN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class Dispatcher:
    """Hands fault plans to the worker fleet.

    Safe to share between threads. Use it as a context manager, or call `close`.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        """Settings come from `config/` and the environment where none are given.

        Raises `InvalidSettingsError`. Nothing is sent yet.
        """
        self._settings = settings or load_settings()
        self._celery = make_celery(self._settings)
        self._ledger = connect(self._settings)
        self._results = ResultCodec(self._celery)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections. Plans that were submitted go on."""
        self._ledger.close()
        self._celery.close()

    def submit(
        self,
        plan: FaultPlan,
        *,
        plan_id: str | None = None,
        timeout_sec: float | None = None,
        expires: float | None = None,
        executor: str = "default",
    ) -> PlanHandle:
        """Hand the plan over. It is durable, and will end, once this has returned.

        `plan_id` makes submitting repeatable: the same plan under the same id is one plan. `timeout_sec` is
        what the plan may take beyond its fault's own time (the Executor's `default_timeout_sec` if absent).
        `expires` is how many seconds it may wait for a worker (no limit if absent); past that it ends with
        `PlanExpiredError` and is never applied. `executor` is a name from the configuration.

        Raises `InvalidPlanError`, `PlanConflictError`, `LedgerUnavailableError`.
        """
        problems = self._problems(plan_id, timeout_sec, expires, executor)
        if problems:
            told = "; ".join(f"{field} {problem}" for field, problem in problems)
            raise InvalidPlanError(f"invalid plan: {told}", problems)
        plan_id = plan_id or str(uuid.uuid4())
        new = self._ledger.submit(
            plan_id,
            plan,
            executor=executor,
            timeout_ms=round((timeout_sec or self._settings.executors[executor].default_timeout_sec) * 1000),
            expires_after_ms=None if expires is None else round(expires * 1000),
        )
        if new and plan.start_time is None:
            publish(self._celery, [WakeUp(plan_id, str(plan))])
        return self.handle(plan_id)

    def handle(self, plan_id: str) -> PlanHandle:
        """A handle on a plan that was submitted here or anywhere else. Nothing is checked yet."""
        return PlanHandle(plan_id, self._ledger, self._results)

    def apply_and_observe(self, plan: FaultPlan, timeout_sec: float = 30.0) -> RawObservation:
        """Submit the plan and wait for its observation (specification 5.1).

        `timeout_sec` bounds the wait for a worker, and again what the plan takes beyond its fault's own
        time. Raises what ended the plan, or `ResultTimeoutError` where no worker is there to end it.
        """
        handle = self.submit(plan, timeout_sec=timeout_sec, expires=timeout_sec)
        status = handle.status()
        wait_sec = 0.0
        if plan.start_time is not None:
            wait_sec = max(0.0, (plan.start_time - status.submitted_at).total_seconds())
        return handle.result(wait_sec + timeout_sec + budget_ms(plan, round(timeout_sec * 1000)) / 1000)

    def _problems(
        self, plan_id: str | None, timeout_sec: float | None, expires: float | None, executor: str
    ) -> list[list[str]]:
        problems = []
        if plan_id is not None and not PLAN_ID.fullmatch(plan_id):
            problems.append(["plan_id", "must be letters, digits, '.', '_' and '-', at most 128 long"])
        problems.extend(
            [name, "must be a number of seconds above 0"]
            for name, seconds in (("timeout_sec", timeout_sec), ("expires", expires))
            if seconds is not None and not 0 < seconds < float("inf")
        )
        if executor not in self._settings.executors:
            known = ", ".join(sorted(self._settings.executors))
            problems.append(["executor", f"must be one of the configured executors: {known}"])
        return problems


class PlanHandle:
    """A submitted plan. Its `id` is all that is needed to find it again, from any process."""

    def __init__(self, plan_id: str, ledger: Ledger, results: ResultCodec) -> None:
        self.id = plan_id
        self._ledger = ledger
        self._results = results

    def __repr__(self) -> str:
        return f"PlanHandle({self.id!r})"

    def status(self) -> PlanStatus:
        """Where the plan stands. Raises `PlanUnknownError`, `LedgerUnavailableError`."""
        record = self._ledger.read(self.id)
        if record is None:
            raise self._unknown()
        return record.status()

    def result(self, timeout: float | None = None) -> RawObservation:
        """The plan's observation, waiting up to `timeout` seconds for it (for ever if None).

        Raises the error that ended the plan, `ResultTimeoutError` where it has not ended in time,
        `PlanUnknownError`, `LedgerUnavailableError`.
        """
        record = self._ledger.wait_for_end(self.id, timeout)
        if record is not None and not record.state.final:
            raise ResultTimeoutError(
                f"plan {self.id} has not ended within {timeout:g} s: it is {record.state}"
                + (f" ({record.cause})" if record.cause else "")
                + ". It goes on; ask again later"
            )
        stored = self._ledger.result(self._results.key(self.id))
        if stored is None:
            raise self._unknown()
        return self._results.decode(stored)

    def _unknown(self) -> PlanUnknownError:
        return PlanUnknownError(f"plan {self.id} is unknown: its id is wrong, or its record has expired")
