"""The folder of an Executor belongs to one at a time."""

from __future__ import annotations

import fcntl
import time
from typing import TYPE_CHECKING

import pytest

from executor.folder import FREE_WITHIN_S, folder_of

if TYPE_CHECKING:
    from pathlib import Path


def test_the_folder_of_an_executor_that_is_being_killed_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dying = (tmp_path / "lock").open("w")
    fcntl.flock(dying, fcntl.LOCK_EX)
    monkeypatch.setattr(time, "sleep", lambda _: dying.close())
    with folder_of(tmp_path) as folder:
        assert folder == tmp_path.resolve()


def test_the_folder_of_an_executor_that_goes_on_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed_s = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: passed_s[0])
    monkeypatch.setattr(time, "sleep", lambda _: passed_s.append(passed_s.pop() + FREE_WITHIN_S))
    with (tmp_path / "lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(OSError, match="another Executor uses the folder"), folder_of(tmp_path):
            pass
