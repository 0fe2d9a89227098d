"""What scripts read: with `--json` each command prints one line of JSON for each plan or finding.

Each line is an object. Its first field is `version`; docs/json.md names the others.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import typer

from dispatcher.printable import printable_json

if TYPE_CHECKING:
    from pydantic import BaseModel

__all__ = ["JSON_VERSION", "json_option", "print_json"]

JSON_VERSION = 1
"""Rises if a field is renamed or removed, or if its type or meaning changes. New fields leave it as it is."""


def json_option(what: str) -> Any:
    """The option `--json` of a command. `what` completes "Print one line of JSON" and names the fields."""
    return typer.Option("--json", help=f"Print one line of JSON {what}.")


def print_json(thing: BaseModel | Mapping[str, object]) -> None:
    """Print one line. A field of a model that has no value is left out.

    The line begins with `version`, which is `JSON_VERSION`.
    """
    fields = thing if isinstance(thing, Mapping) else thing.model_dump(mode="json", exclude_none=True)
    line = {"version": JSON_VERSION, **fields}
    typer.echo(_encodable(printable_json(json.dumps(line, ensure_ascii=False))))


def _encodable(text: str) -> str:
    """The same JSON, in ASCII if the encoding of standard output lacks one of its characters."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return json.dumps(json.loads(text))
    return text
