"""The folder of an Executor, which belongs to one at a time."""

from __future__ import annotations

import contextlib
import fcntl
import tempfile
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["FREE_WITHIN_S", "folder_of"]

FREE_WITHIN_S = 2.0
"""How long an Executor that was killed may keep its folder: the system takes a moment to end it."""

LOOK_EVERY_S = 0.05


@contextlib.contextmanager
def folder_of(state_dir: Path | None) -> Iterator[Path]:
    """The folder that only this Executor uses. Raises `OSError` if another Executor has it."""
    if state_dir is None:
        with tempfile.TemporaryDirectory(prefix="executor-") as folder:
            yield Path(folder)
        return
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (state_dir / "lock").open("w") as lock:
        give_up_at = time.monotonic() + FREE_WITHIN_S
        while not _taken(lock):
            if time.monotonic() > give_up_at:
                raise OSError(f"another Executor uses the folder {state_dir}")
            time.sleep(LOOK_EVERY_S)
        yield state_dir.resolve()


def _taken(lock: IO[str]) -> bool:
    """Whether this process has the lock now."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
