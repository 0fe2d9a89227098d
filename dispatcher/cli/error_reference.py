"""The reference of all errors, made from their classes: `python -m dispatcher.cli.error_reference`."""

from __future__ import annotations

import inspect
import sys

from dispatcher import errors
from dispatcher.devstack.child import StackError

__all__ = ["document"]

HEADER = """\
# Errors

`make docs` generates this page from [`dispatcher/errors.py`](../dispatcher/errors.py). All errors can be
imported from `dispatcher`, and `ExecutorClientError` is their base. A command that ends with an error exits
with its code. Wrong arguments also exit with 2, Ctrl-C with 130. 0 means that every plan has its observation.
"Retry" is yes if the same request may succeed later, and repeating it does no harm. A plan that has ended
does not change. To submit it as a new plan, give it another id, or none. Programs read the last column from
`error.advice`.

| exit code | error | retry | what it means | what to do |
|---|---|---|---|---|
"""


def document() -> str:
    """The Markdown text."""
    known: list[type[errors.ExecutorClientError]] = [getattr(errors, name) for name in errors.__all__]
    known.append(StackError)
    rows = sorted(known, key=lambda each: (each.exit_code, each.__name__))
    return HEADER + "".join(map(_row, rows))


def _row(error: type[errors.ExecutorClientError]) -> str:
    meaning = " ".join((inspect.getdoc(error) or "").split())
    retry = "yes" if error.retry_safe else "no"
    return f"| {error.exit_code} | `{error.__name__}` | {retry} | {meaning} | {error.advice} |\n"


if __name__ == "__main__":
    sys.stdout.write(document())
