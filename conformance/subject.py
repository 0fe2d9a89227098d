"""The Executor that is checked: what is asked of it, and what must be taken away from it in the end."""

from __future__ import annotations

import itertools
import json
import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import quote

from dispatcher.errors import ExecutorClientError
from workers.drivers.answers import parse_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from workers.drivers.answers import Answer
    from workers.drivers.transport import HttpTransport

__all__ = [
    "LOOK_EVERY_S",
    "NO_SUCH_METHOD",
    "SHORT_S",
    "AbsentError",
    "Subject",
    "ViolationError",
    "shown",
    "until",
]

LOOK_EVERY_S = 0.1
LEFT_BEHIND_S = 5.0
LONGEST_EXCERPT = 160
SHORT_S = 3
"""How long those faults last that no case waits for, in seconds: an Executor may be unable to stop them."""

NO_SUCH_METHOD = {404, 405, 501}
"""What an Executor without an extension answers."""


class ViolationError(Exception):
    """The contract is broken. Its text is what came."""


class AbsentError(Exception):
    """The Executor does without an extension. Its text is what came."""


@dataclass(slots=True)
class Subject:
    """The Executor under test. Faults hit paths without traffic."""

    transport: HttpTransport
    stranger: HttpTransport
    """The same without a token."""

    has_token: bool
    service: str
    prefix: str
    faults: list[str] = field(default_factory=list)
    """All that were applied."""

    _numbers: itertools.count[int] = field(default_factory=itertools.count)
    _run: str = field(default_factory=lambda: uuid.uuid4().hex[:8])

    def body(self, **changes: Any) -> dict[str, Any]:
        """A valid apply for a target of its own, except for the changes. None takes a field away."""
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

    def apply(self, body: object, headers: dict[str, str] | None = None) -> Answer:
        """`POST /v1/faults/apply`. What comes into being is remembered."""
        answer = self.transport.call("POST", "/v1/faults/apply", body, headers)
        try:
            fields = answer.json() if answer.ok else {}
        except ExecutorClientError:
            fields = {}
        apply_id = fields.get("apply_id") if isinstance(fields, dict) else None
        if isinstance(apply_id, str) and apply_id and apply_id not in self.faults:
            self.faults.append(apply_id)
        return answer

    def applied(self, body: object = None, headers: dict[str, str] | None = None) -> str:
        """The id of a new fault. Raises `ViolationError`."""
        answer = self.apply(self.body() if body is None else body, headers)
        fields = self.fields(answer)
        apply_id = fields.get("apply_id")
        if fields.get("status") != "applied" or not (isinstance(apply_id, str) and apply_id):
            self.violated(answer)
        return str(apply_id)

    def about(self, apply_id: str, part: str) -> Answer:
        """`GET /v1/faults/{apply_id}/status`, or `/metrics`."""
        return self.transport.call("GET", f"{path(apply_id)}/{part}")

    def stop(self, apply_id: str) -> Answer:
        """`DELETE /v1/faults/{apply_id}`"""
        return self.transport.call("DELETE", path(apply_id))

    def fields(self, answer: Answer) -> dict[str, Any]:
        """The object in a good answer. Raises `ViolationError`."""
        fields = answer.json() if answer.ok else None
        if not isinstance(fields, dict):
            self.violated(answer)
        return fields

    def status(self, apply_id: str) -> str:
        """What the Executor says of the fault. Raises `ViolationError`."""
        return str(self.fields(self.about(apply_id, "status")).get("status"))

    def until_over(self, apply_id: str, within_s: float) -> bool:
        """Wait for the fault's end. False if it is still running then."""
        return until(lambda: self.status(apply_id) != "running", within_s)

    def violated(self, answer: Answer) -> NoReturn:
        """Raise what came."""
        raise ViolationError(shown(answer))

    def clean_up(self) -> list[str]:
        """End all faults; those that are running in spite of that."""
        for apply_id in self.faults:
            self._forgive(lambda apply_id=apply_id: self.stop(apply_id))  # type: ignore[misc]
        gives_up_at = time.monotonic() + SHORT_S + LEFT_BEHIND_S
        return [each for each in self.faults if not self._gone(each, gives_up_at - time.monotonic())]

    def _gone(self, apply_id: str, within_s: float) -> bool:
        def gone() -> bool:
            answer = self._forgive(lambda: self.about(apply_id, "status"))
            if answer is None or not answer.ok:
                return answer is not None and answer.status in NO_SUCH_METHOD
            return b'"running"' not in answer.body

        return until(gone, within_s)

    def _forgive(self, call: Callable[[], Answer]) -> Answer | None:
        try:
            return call()
        except ExecutorClientError:
            return None


def until(condition: Callable[[], bool], within_s: float) -> bool:
    """Whether the condition has come true in time."""
    gives_up_at = time.monotonic() + within_s
    while not (true := condition()) and time.monotonic() < gives_up_at:
        time.sleep(LOOK_EVERY_S)
    return true


def path(apply_id: str) -> str:
    """Where the fault is."""
    return f"/v1/faults/{quote(apply_id, safe='')}"


def shown(answer: Answer) -> str:
    """Status, and how the body begins."""
    body = answer.body.decode("utf-8", "backslashreplace")
    try:
        body = json.dumps(parse_json(answer.body), ensure_ascii=False)
    except ValueError:
        body = repr(body)
    excerpt = body if len(body) <= LONGEST_EXCERPT else f"{body[:LONGEST_EXCERPT]}..."
    return f"{answer.status} {excerpt}"
