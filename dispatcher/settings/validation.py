"""Turns pydantic's errors into what a person reads: the field, and what is wrong with it."""

from __future__ import annotations

from pydantic import ValidationError

_OWN_WORDS = {
    "missing": "is required",
    "extra_forbidden": "is not a field here",
}


def problems_of(error: ValidationError) -> list[list[str]]:
    """`[field, problem]` for each thing that is wrong. Values are left out: a value may be a secret."""
    return [
        [
            ".".join(str(part) for part in detail["loc"]) or "(whole)",
            _OWN_WORDS.get(detail["type"]) or _worded(detail["msg"]),
        ]
        for detail in error.errors(include_input=False, include_url=False, include_context=False)
        if detail["type"] != "default_factory_not_called"  # what it needs is wrong, and is in the list
    ]


def in_words(error: ValueError) -> str:
    """What is wrong with something that was stored, in one line."""
    if isinstance(error, ValidationError):
        return "; ".join(" ".join(each) for each in problems_of(error))
    return str(error)


def _worded(message: str) -> str:
    """Pydantic's "Input should be ..." read behind the name of a field."""
    own = message.removeprefix("Value error, ")
    return own.replace("Input should", "must", 1).replace("must have", "must have", 1)
