"""What the log lines of a worker look like, and which step they are from."""

from __future__ import annotations

import json
import logging
import re
from datetime import UTC, datetime
from typing import Any

from pythonjsonlogger.json import JsonFormatter

from dispatcher.printable import OneLine
from dispatcher.settings.settings import LogFormat
from dispatcher.telemetry.traces import trace_id
from workers.engine.traces import step_under_way

__all__ = ["FIELDS", "JsonLines", "StepFields", "structure"]

FIELDS = ("plan", "executor", "apply_id", "attempt", "duration_ms", "trace_id")
"""What a line may say of a step besides its message. Only what is known is there."""

PLAIN = re.compile(r"[^\s\"=]+")
"""A value that needs no quotes in a line of text."""


class StepFields(logging.Filter):
    """Adds to each line what is known of the step that it is from. What the line says itself stays."""

    def filter(self, record: logging.LogRecord) -> bool:
        known: dict[str, Any] = {"trace_id": trace_id()}
        step = step_under_way()
        if step is not None:
            known |= {"plan": step.id, "executor": step.executor}
            known |= {"apply_id": step.apply_id, "attempt": step.attempts + 1}
        for name, value in known.items():
            record.__dict__.setdefault(name, value)
        record.fields = "".join(f" {name}={_quoted(value)}" for name, value in _fields(record).items())
        return True


class JsonLines(JsonFormatter):
    """One object a line, even if the message has several."""

    def add_fields(
        self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]
    ) -> None:
        """Only these: what libraries attach to their records is their own business, and may be secret."""
        log_data["time"] = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        log_data["level"] = record.levelname
        log_data["logger"] = record.name
        log_data["message"] = record.getMessage()
        log_data.update(_fields(record))
        if "exc_info" in message_dict:
            log_data["exception"] = message_dict["exc_info"]


def structure(logger: logging.Logger, lines: LogFormat, text: str, *, colorize: bool) -> None:
    """Have all of the logger's lines in the chosen format. `text` is Celery's own, for people."""
    for handler in logger.handlers:
        handler.addFilter(StepFields())
        if lines is LogFormat.JSON:
            handler.setFormatter(JsonLines())
        elif handler.formatter is not None:
            celerys: Any = type(handler.formatter)
            of_one_line = type("OneLineOfCelery", (OneLine, celerys), {})
            handler.setFormatter(of_one_line(f"{text}%(fields)s", use_color=colorize))


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    found = {name: record.__dict__.get(name) for name in FIELDS}
    return {name: value for name, value in found.items() if value is not None}


def _quoted(value: object) -> str:
    text = str(value)
    return text if PLAIN.fullmatch(text) and text.isprintable() else json.dumps(text)
