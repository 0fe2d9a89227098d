"""The Executor that is checked: calls to it, and the faults that must be gone in the end."""

from __future__ import annotations

import itertools
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import quote

from conformance.errors import FailedError, SkippedError
from conformance.outside import SystemClock
from conformance.reading import NO_SUCH_CALL, fields_of, loose_fields, refuse
from dispatcher.errors import ExecutorClientError

if TYPE_CHECKING:
    from collections.abc import Callable

    from conformance.outside import Api, Clock, Outage, Traffic
    from workers.drivers.answers import Answer

__all__ = ["AT_ONCE", "LONGEST_S", "LOOK_EVERY_S", "SHORT_S", "SOON_S", "Subject", "needed", "new_id", "path"]

AT_ONCE = 8
"""Calls under way at a time."""

LOOK_EVERY_S = 0.1
SOON_S = 5.0
"""How late a fault's end may be, in seconds."""

SHORT_S = 3
"""How long those faults last that no check waits for, in seconds: an Executor may be unable to stop them."""

LONGEST_S = 30
"""How long those faults last that are left on the traffic if the Executor is killed, in seconds."""

CONFLICT = 409

T = TypeVar("T")


@dataclass(slots=True)
class Subject:
    """The Executor under test, and what is known of its surroundings."""

    api: Api
    stranger: Api
    """The same without a token."""

    has_token: bool
    service: str
    prefix: str
    """Faults hit paths below it, except those that are to meet the traffic."""

    traffic: Traffic | None = None
    kill: Outage | None = None
    hang: Outage | None = None
    max_active_faults: int | None = None
    clock: Clock = field(default_factory=SystemClock)
    threads: int = AT_ONCE
    """How many calls of `at_once` are under way at a time."""

    faults: dict[str, float] = field(default_factory=dict)
    """All that were applied, with the moment at which each must have ended by itself, by the steady clock."""

    _numbers: itertools.count[int] = field(default_factory=itertools.count)
    _run: str = field(default_factory=lambda: uuid.uuid4().hex[:8])
    _stories: dict[object, object] = field(default_factory=dict)

    def body(self, **changes: Any) -> dict[str, Any]:
        """A valid apply to a target of its own, except for the changes. None takes a field away."""
        fields: dict[str, Any] = {
            "service": self.service,
            "api": f"{self.prefix}/{self._run}/{next(self._numbers)}",
            "fault_type": "abort",
            "percentage": 0,
            "duration_seconds": SHORT_S,
            "fault_config": {"http_status": 503},
        }
        return {name: value for name, value in (fields | changes).items() if value is not None}

    def key(self) -> str:
        """A new idempotency key."""
        return f"conformance-{self._run}-{next(self._numbers)}"

    def once(self, story: Callable[[Subject], T]) -> T:
        """What the story returns. Checks of different promises share it, because it takes time."""
        if story not in self._stories:
            try:
                self._stories[story] = story(self)
            except (FailedError, SkippedError) as exc:
                self._stories[story] = exc
        found = self._stories[story]
        if isinstance(found, FailedError | SkippedError):
            raise found
        return cast("T", found)

    def apply(self, body: object, headers: dict[str, str] | None = None, api: Api | None = None) -> Answer:
        """`POST /v1/faults/apply`, through another `api` if one is given. What is applied is remembered."""
        answer = (api or self.api).call("POST", "/v1/faults/apply", body, headers)
        fields = loose_fields(answer) if answer.ok else None
        apply_id = fields.get("apply_id") if fields else None
        if isinstance(apply_id, str) and apply_id:
            lasts = body.get("duration_seconds") if isinstance(body, dict) else None
            lasts_s = float(lasts) if isinstance(lasts, int) else SHORT_S
            self.faults.setdefault(apply_id, self.clock.steady_s() + lasts_s)
        return answer

    def applied(self, body: object = None, headers: dict[str, str] | None = None) -> str:
        """The id of a new fault. Raises `FailedError`."""
        return new_id(self.apply(self.body() if body is None else body, headers))

    def applied_once_free(self, body: dict[str, Any]) -> str:
        """The same, on a target that may have a fault of the checks still. Raises `FailedError`."""
        gives_up_at = self.clock.steady_s() + LONGEST_S + SOON_S
        while (answer := self.apply(body)).status == CONFLICT and self.clock.steady_s() < gives_up_at:
            self.clock.sleep(LOOK_EVERY_S)
        return new_id(answer)

    def about(self, apply_id: str, part: str) -> Answer:
        """`GET /v1/faults/{apply_id}/status`, or `/metrics`."""
        return self.api.call("GET", f"{path(apply_id)}/{part}")

    def stop(self, apply_id: str) -> Answer:
        """`DELETE /v1/faults/{apply_id}`"""
        return self.api.call("DELETE", path(apply_id))

    def status(self, apply_id: str) -> str:
        """What the Executor says of the fault. Raises `FailedError`."""
        return str(fields_of(self.about(apply_id, "status")).get("status"))

    def until_over(self, apply_id: str, within_s: float) -> bool:
        """Wait for the fault's end. False if it is still running then."""
        return self.until(lambda: self.status(apply_id) != "running", within_s)

    def until(self, condition: Callable[[], bool], within_s: float) -> bool:
        """Whether the condition has become true in time."""
        gives_up_at = self.clock.steady_s() + within_s
        while not (true := condition()) and self.clock.steady_s() < gives_up_at:
            self.clock.sleep(LOOK_EVERY_S)
        return true

    def at_once(self, call: Callable[[int], T], times: int) -> list[T]:
        """What these calls return, with `threads` of them under way at a time."""
        if self.threads == 1:
            return list(map(call, range(times)))
        with ThreadPoolExecutor(self.threads) as pool:
            return list(pool.map(call, range(times)))

    def needed_traffic(self) -> Traffic:
        """Raises `SkippedError` if there is none."""
        return needed(self.traffic, "no --probe was given")

    def stop_quietly(self, apply_ids: list[str]) -> None:
        """Ask for the end of these faults, in spite of all errors."""

        def stop(number: int) -> None:
            with suppress(ExecutorClientError):
                self.stop(apply_ids[number])

        self.at_once(stop, len(apply_ids))

    def clean_up(self) -> list[str]:
        """End all faults; those that are running in spite of that."""
        self.stop_quietly(list(self.faults))
        return [each for each, ends_s in self.faults.items() if not self._gone(each, ends_s)]

    def _gone(self, apply_id: str, ends_s: float) -> bool:
        def gone() -> bool:
            try:
                answer = self.about(apply_id, "status")
            except ExecutorClientError:
                return False
            if not answer.ok:
                return answer.status in NO_SUCH_CALL
            return (loose_fields(answer) or {}).get("status") != "running"

        return self.until(gone, ends_s + SOON_S - self.clock.steady_s())


def new_id(answer: Answer) -> str:
    """The id in the answer to an apply. Raises `FailedError` if it says nothing of a new fault."""
    fields = fields_of(answer)
    apply_id = fields.get("apply_id")
    if fields.get("status") != "applied" or not (isinstance(apply_id, str) and apply_id):
        refuse(answer)
    return apply_id


def needed(thing: T | None, reason: str) -> T:
    """The thing. Raises `SkippedError` with the reason if there is none."""
    if thing is None:
        raise SkippedError(reason)
    return thing


def path(apply_id: str) -> str:
    """The path of a fault."""
    return f"/v1/faults/{quote(apply_id, safe='')}"
