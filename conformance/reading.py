"""What checks conclude from answers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError

from conformance.errors import FailedError
from dispatcher.errors import ExecutorClientError
from dispatcher.settings.validation import in_words
from workers.drivers.answers import parse_json

if TYPE_CHECKING:
    from workers.drivers.answers import Answer

__all__ = [
    "NO_SUCH_CALL",
    "all_with_status",
    "fields_of",
    "held",
    "loose_fields",
    "read_as",
    "refuse",
    "shown",
    "with_status",
]

LONGEST_EXCERPT = 160

NO_SUCH_CALL = {404, 405, 501}
"""What an Executor answers to a call that it does not have."""

T = TypeVar("T", bound=BaseModel)


def held(good: object, seen: str) -> str:
    """What was seen, if it is good. Raises `FailedError`."""
    if not good:
        raise FailedError(seen)
    return seen


def with_status(answer: Answer, *statuses: int) -> str:
    """What was seen, if the answer has one of these statuses. Raises `FailedError`."""
    return held(answer.status in statuses, shown(answer))


def all_with_status(answers: list[Answer], *statuses: int) -> str:
    """What was seen, if each answer has one of these statuses. Raises `FailedError` with the others."""
    wrong = [answer for answer in answers if answer.status not in statuses]
    return held(not wrong, ", ".join(f"{_call(each)}: {shown(each)}" for each in wrong or answers[:1]))


def refuse(answer: Answer) -> NoReturn:
    """Raises `FailedError` with the answer."""
    raise FailedError(shown(answer))


def fields_of(answer: Answer) -> dict[str, Any]:
    """The object in an answer of success. Raises `FailedError`."""
    fields = loose_fields(answer) if answer.ok else None
    if fields is None:
        refuse(answer)
    return fields


def loose_fields(answer: Answer) -> dict[str, Any] | None:
    """The object in any answer. None if there is none."""
    try:
        fields = answer.json()
    except ExecutorClientError:
        return None
    return fields if isinstance(fields, dict) else None


def read_as(kind: type[T], answer: Answer) -> T:
    """The answer as the driver reads it. Raises `FailedError`."""
    try:
        return kind.model_validate(fields_of(answer), strict=True)
    except ValidationError as exc:
        raise FailedError(f"{shown(answer)} ({in_words(exc)})") from exc


def shown(answer: Answer) -> str:
    """Status, and how the body begins."""
    body = answer.body.decode("utf-8", "backslashreplace")
    try:
        body = json.dumps(parse_json(answer.body), ensure_ascii=False)
    except ValueError:
        body = repr(body)
    excerpt = body if len(body) <= LONGEST_EXCERPT else f"{body[:LONGEST_EXCERPT]}..."
    return f"{answer.status} {excerpt}"


def _call(answer: Answer) -> str:
    """Method and path, without the address."""
    method, _, url = answer.call.partition(" ")
    return f"{method} /{url.partition('://')[2].partition('/')[2]}"
