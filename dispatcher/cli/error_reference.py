"""The reference of all errors, made from their classes: `python -m dispatcher.cli.error_reference`."""

from __future__ import annotations

import inspect
import sys

from dispatcher import errors
from dispatcher.devstack.child import StackError

__all__ = ["document"]

HEADER = """\
# Errors

Made by `make docs` from [`dispatcher/errors.py`](../dispatcher/errors.py). All are in `dispatcher`, under
`ExecutorClientError`. A command that an error ends exits with its code; 2 is also that of wrong arguments,
130 that of Ctrl-C, and 0 means that every plan has its observation. "Retry" says whether the same request may
succeed later and repeating it does no harm. A plan that has ended stays as it is: to submit it as a new plan
is to give it another id, or none. Programs find the last column in `error.advice`.

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
