"""Tasks of a user's own, which a worker of plans runs too if `--include support.own_tasks` names them."""

from __future__ import annotations

import gc
import json
import os
from collections import Counter
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


@shared_task(name="own.plain")  # type: ignore[untyped-decorator]
def plain(value: int) -> int:
    """A task without options."""
    return value


@shared_task(name="own.live_objects", ignore_result=False)  # type: ignore[untyped-decorator]
def live_objects(names: list[str], collect: bool) -> dict[str, int]:  # noqa: FBT001 (JSON)
    """How many objects of classes with these names the worker has.

    `collect` has the collector of cycles run first. Otherwise it does not run from now on.
    """
    if collect:
        gc.enable()
        gc.collect()
    else:
        gc.disable()
    found = Counter(type(each).__name__ for each in gc.get_objects())
    return {name: found[name] for name in names}


def note(*what: Any) -> None:
    """Add a line to the file that OWN_TASKS_FILE names."""
    with Path(os.environ["OWN_TASKS_FILE"]).open("a", encoding="utf-8") as out:
        out.write(json.dumps(what) + "\n")


def noted(file: Path) -> list[list[Any]]:
    """The lines of such a file."""
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()] if file.exists() else []
