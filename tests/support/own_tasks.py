"""Tasks of a user's own, which a worker of plans runs too if `--include support.own_tasks` names them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from celery import shared_task


@shared_task(name="own.report", ignore_result=False)  # type: ignore[untyped-decorator]
def report(seen: Any, way: str) -> Any:
    """Record what it was called with."""
    note("report", way, seen)
    return seen


@shared_task(name="own.complain", ignore_result=False)  # type: ignore[untyped-decorator]
def complain(failed_id: str, way: str) -> str:
    """Record whose failure it was called for."""
    note("complain", way, failed_id)
    return failed_id


def note(*what: Any) -> None:
    """Add a line to the file that OWN_TASKS_FILE names."""
    with Path(os.environ["OWN_TASKS_FILE"]).open("a", encoding="utf-8") as out:
        out.write(json.dumps(what) + "\n")


def noted(file: Path) -> list[list[Any]]:
    """The lines of such a file."""
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()] if file.exists() else []
