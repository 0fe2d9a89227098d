"""Errors as they are stored, a name and arguments each: data that chooses among the classes of `errors`."""

from __future__ import annotations

import functools
import inspect
import json
from typing import TYPE_CHECKING, Any, get_type_hints

import pydantic_core
from pydantic import TypeAdapter

from dispatcher import errors
from dispatcher.printable import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dispatcher.errors import ExecutorClientError

__all__ = ["as_known", "from_json", "is_known", "restore", "to_json"]


def to_json(error: ExecutorClientError) -> str:
    """The error as text, for the ledger."""
    known = as_known(error)
    return json.dumps([type(known).__name__, *known.args])


def is_known(error: ExecutorClientError) -> bool:
    """Whether any reader knows the error as it is."""
    known = as_known(error)
    return type(known) is type(error) and known.args == error.args


def as_known(error: ExecutorClientError) -> ExecutorClientError:
    """The same error as any reader knows it: of a class of `dispatcher.errors`, with arguments that are JSON.

    Drivers may raise classes of their own. If an argument cannot be stored, only the message remains.
    """
    kind = next(each for each in type(error).__mro__ if getattr(errors, each.__name__, None) is each)
    try:
        return from_json(json.dumps([kind.__name__, *error.args]))
    except (TypeError, ValueError, RecursionError):
        return restore(kind.__name__, [printable(str(error.args[0] if error.args else kind.__name__))])


def from_json(text: str) -> ExecutorClientError:
    """The error that `to_json` wrote. Raises `ValueError` for any other text."""
    stored = pydantic_core.from_json(text, cache_strings="keys")  # texts would be kept
    if not isinstance(stored, list) or not stored:
        raise ValueError("it must be a list of a name and arguments")
    return restore(stored[0], stored[1:])


def restore(name: object, arguments: Sequence[object]) -> ExecutorClientError:
    """The error of the class with that name, with these arguments.

    Raises `ValueError` if no class here has that name, or if it takes no such arguments.
    """
    if not isinstance(name, str) or name not in errors.__all__:
        raise ValueError(f"no error of the dispatcher is called {name!r}")
    kind: Callable[..., ExecutorClientError] = getattr(errors, name)
    for adapter, argument in zip(_adapters(kind), arguments, strict=False):
        adapter.validate_python(argument, strict=True)
    try:
        return kind(*arguments)
    except TypeError as exc:
        raise ValueError(f"{name} takes fewer arguments") from exc


@functools.cache
def _adapters(kind: Any) -> list[TypeAdapter[Any]]:
    """What the types of the arguments are checked by, in their order."""
    hints = get_type_hints(kind.__init__)
    return [TypeAdapter(hints[name]) for name in inspect.signature(kind).parameters]
