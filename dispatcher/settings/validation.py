"""Turns pydantic's errors into what a person reads: the field, and what is wrong with it."""

from __future__ import annotations

import re
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError

from dispatcher.errors import InvalidSettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = [
    "as_a_part",
    "in_words",
    "invalid_settings",
    "no_switch",
    "outermost",
    "problems_of",
]

T = TypeVar("T")

_OWN_WORDS = {
    "missing": "is required",
    "extra_forbidden": "is not a field here",
}
_SHOWS_THE_VALUE = re.compile(
    r"Input tag '.*' found using '(\w+)' does not match any of the expected tags", re.DOTALL
)
_is_a_part: ContextVar[bool] = ContextVar("is_a_part", default=False)


def problems_of(error: ValidationError) -> list[list[str]]:
    """`[field, problem]` for each thing that is wrong. Values are left out: a value may be a secret."""
    return [
        [".".join(str(part) for part in detail["loc"]) or "(whole)", in_own_words(detail)]
        for detail in details_of(error)
    ]


def details_of(error: ValidationError) -> list[Mapping[str, Any]]:
    """Pydantic's details, without values. What only follows from another detail is left out."""
    details = error.errors(include_input=False, include_url=False, include_context=False)
    return [detail for detail in details if detail["type"] != "default_factory_not_called"]


def in_own_words(detail: Mapping[str, Any]) -> str:
    """What is wrong, to be read behind the name of a field."""
    return _OWN_WORDS.get(detail["type"]) or _worded(detail["msg"])


def in_words(error: ValueError) -> str:
    """What is wrong with something that was stored, in one line."""
    if isinstance(error, ValidationError):
        return "; ".join(" ".join(each) for each in problems_of(error))
    return str(error)


def invalid_settings(problems: list[list[str]]) -> InvalidSettingsError:
    """The error that names these problems."""
    message = "; ".join(f"{field} {problem}" for field, problem in problems)
    return InvalidSettingsError(f"invalid settings: {message}", problems)


def outermost(value: object, handler: Callable[[object], T]) -> T:
    """For validators: raise `InvalidSettingsError` for all that is wrong, unless another model has this one.

    Pydantic's own error holds the values, and one of them may be a secret.
    """
    if _is_a_part.get():
        return handler(value)
    try:
        with as_a_part():
            return handler(value)
    except ValidationError as exc:
        problems = problems_of(exc)
    raise invalid_settings(problems)  # not from pydantic's error: a traceback would show both


def no_switch(value: object) -> object:
    """For fields of numbers: pydantic takes true for 1. Raises `ValueError` for true and false."""
    if isinstance(value, bool):
        raise ValueError("must be a number, not true or false")
    return value


@contextmanager
def as_a_part() -> Iterator[None]:
    """Models that are validated meanwhile leave pydantic's error to their caller."""
    token = _is_a_part.set(True)
    try:
        yield
    finally:
        _is_a_part.reset(token)


def _worded(message: str) -> str:
    """Pydantic's "Input should be ..." read behind the name of a field."""
    own = _SHOWS_THE_VALUE.sub(r"must have as its \1 one of these", message.removeprefix("Value error, "))
    return own.replace("Input should", "must", 1)
