"""Real parts for one seam at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.processes import ExecutorProcess
from support.warm import prepared

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session", autouse=True)
def _programs_begin_at_once() -> Iterator[None]:
    with prepared():
        yield


@pytest.fixture(scope="session")
def executor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ExecutorProcess]:
    """The reference Executor with Envoy, and no traffic but the test's own."""
    log = tmp_path_factory.mktemp("executor") / "executor.log"
    with ExecutorProcess(log, traffic_rps=0) as process:
        yield process
