"""The reference of all settings, made from their classes: `python -m dispatcher.settings.reference`."""

from __future__ import annotations

import json
import re
import sys
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

from pydantic import BaseModel, SecretStr
from pydantic_core import PydanticUndefined

from dispatcher.limits import MAX_SECONDS
from dispatcher.settings.executors import ExecutorClientConfig
from dispatcher.settings.observers import (
    ApiSettings,
    ProbeSettings,
    PrometheusSettings,
    ServiceSettings,
)
from dispatcher.settings.settings import LogSettings, Settings, WorkerSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic.fields import FieldInfo

__all__ = ["SECTIONS", "document", "meaning_of", "unit_of"]

HEADER = """\
# Settings

Made by `make docs` from [`dispatcher/settings/`](../dispatcher/settings/settings.py).

A TOML file that `DISPATCHER_CONFIG` names is read first; environment variables win over it. No other file is
read. [`config/default.toml`](../config/default.toml) has every setting with its default, to copy and change.

A variable is `DISPATCHER_`, the section and the setting in upper case, with two underscores between them.
Tables and lists are JSON in a variable: `DISPATCHER_EXECUTORS__DEFAULT__ON_DOUBT='{"late": "fail"}'`.
A variable names an Executor or a service in lower case only, so the settings of `PaymentService` belong into
the file. No time may be longer than a year.

A variable that begins with `DISPATCHER_` and names no setting has no effect, and a warning names it. An
unknown setting in the file is an error. Passwords and tokens belong into the environment.
"""


class SectionOfFile(NamedTuple):
    """A part of the settings file."""

    table: str
    """Its name in the file, with `default` and `payment` for the names that people choose."""

    model: type[BaseModel]
    about: str


SECTIONS = [
    SectionOfFile("", Settings, "At the top of the file."),
    SectionOfFile("worker", WorkerSettings, "What one worker process does at once."),
    SectionOfFile("logs", LogSettings, "What workers log."),
    SectionOfFile(
        "executors.default",
        ExecutorClientConfig,
        "One section for each Executor. `default` is the one of plans that name none.",
    ),
    SectionOfFile(
        "executors.default.observer",
        ProbeSettings,
        '`kind = "probe"`: sends requests of its own to the target. See [observe](observe.md#a-probe).',
    ),
    SectionOfFile(
        "executors.default.observer",
        PrometheusSettings,
        '`kind = "prometheus"`: asks a Prometheus server. See [observe](observe.md#a-prometheus-server).',
    ),
    SectionOfFile(
        "services.payment",
        ServiceSettings,
        "One section for each service that a probe sends requests to. Its settings win over the observer's.",
    ),
    SectionOfFile(
        'services.payment.apis."/users/{id}"',
        ApiSettings,
        "What differs for one API of the service. A variable cannot set it; the JSON in that of `apis` can.",
    ),
]

UNITS = {
    "_per_sec": "per second",
    "_sec": "seconds",
    "_ms": "milliseconds",
    "_bytes": "bytes",
    "_jitter": "a share",
    "_rate": "a share",
    "_ratio": "a share",
    "_share": "a share",
}
"""By how a setting's name ends."""

KINDS = {
    "array": "list",
    "boolean": "true or false",
    "integer": "whole number",
    "number": "number",
    "object": "table",
}
FORMATS = {"password": "secret text", "path": "file"}
BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


def document() -> str:
    """The Markdown text."""
    links = ", ".join(f"[{_title(each)}](#{_anchor(each)})" for each in SECTIONS)
    return f"{HEADER}\nSections: {links}.\n" + "".join(map(_section, SECTIONS))


def unit_of(name: str) -> str:
    """What a setting's number counts. Empty if it is a plain number, or none."""
    return next((unit for end, unit in UNITS.items() if name.endswith(end)), "")


def meaning_of(field: FieldInfo) -> str:
    """A setting's docstring on one line. Empty if it has none."""
    return " ".join((field.description or "").split())


def _section(section: SectionOfFile) -> str:
    rows = "".join(_rows(section))
    columns = "| setting | value | default | meaning, and environment variable |\n|---|---|---|---|\n"
    return f"\n## {_title(section)}\n\n{section.about}\n\n{columns}{rows}"


def _title(section: SectionOfFile) -> str:
    if not section.table:
        return "Top level"
    kind = section.model.model_fields.get("kind")
    return f"`{section.table}`" if kind is None else f"`{section.table}`: {get_args(kind.annotation)[0]}"


def _anchor(section: SectionOfFile) -> str:
    """What a link to the section calls it."""
    return re.sub(r"[^\w -]", "", _title(section).lower()).replace(" ", "-")


def _rows(section: SectionOfFile) -> Iterator[str]:
    schema = section.model.model_json_schema()
    for name, field in section.model.model_fields.items():
        shape = schema["properties"][name]
        if _is_a_section(name, section):
            continue
        value = ", ".join(filter(None, [_value(shape, schema), unit_of(name)]))
        meaning = meaning_of(field) + _variable(section, name)
        yield f"| `{name}` | {_cell(value)} | {_default(field)} | {_cell(meaning)} |\n"


def _is_a_section(name: str, section: SectionOfFile) -> bool:
    """Whether the setting has a table of its own in this reference."""
    path = f"{section.table}.{name}".strip(".")
    return any(other.table == path or other.table.startswith(f"{path}.") for other in SECTIONS)


def _variable(section: SectionOfFile, name: str) -> str:
    if section.model is ApiSettings:
        return ""
    parts = [*filter(None, section.table.split(".")), name]
    return f"<br>`DISPATCHER_{'__'.join(parts).upper()}`"


def _value(shape: dict[str, Any], schema: dict[str, Any]) -> str:
    """What may be set, in words."""
    if "$ref" in shape:
        return _value(schema["$defs"][shape["$ref"].rpartition("/")[2]], schema)
    if "anyOf" in shape:
        return " or ".join(_value(each, schema) for each in shape["anyOf"] if each.get("type") != "null")
    choices = shape.get("enum") or ([shape["const"]] if "const" in shape else [])
    if choices:
        return ", ".join(f"`{each}`" for each in choices)
    kind = FORMATS.get(shape.get("format", ""), KINDS.get(shape.get("type", ""), "text"))
    bounds = [
        f"{mark} {shape[key]:,}" for key, mark in BOUNDS.items() if shape.get(key, MAX_SECONDS) < MAX_SECONDS
    ]
    return f"{kind} {' and '.join(bounds)}" if bounds else kind


def _default(field: FieldInfo) -> str:
    """The default as TOML has it."""
    if field.is_required():
        return "required"
    value = field.default
    if value is PydanticUndefined:
        return "see meaning"
    if value is None:
        return "none"
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    return f"`{json.dumps(value)}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.write(document())
