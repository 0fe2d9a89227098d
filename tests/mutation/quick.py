"""A plugin of pytest for runs over mutants: the quick tests, in the order in which they are likely to kill.

Tests that need a real Redis, a process or many threads are left out. Properties have the same few examples
in each run and come last. One that fails is not simplified: only that it fails is of interest.
"""

from __future__ import annotations

import gc
import json
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
from hypothesis import Phase
from support.redis_server import SOURCES

if TYPE_CHECKING:
    import pytest

EXAMPLES = 30
STATISTICS = Path("mutmut-stats.json")
"""In the folder in which mutmut runs the tests."""

REAL_SERVERS = {"redis_server", "own_redis", "redis_url"}
REAL_VERSIONS = tuple(SOURCES)
FOR_PROGRAMS = "_programs_begin_at_once"
"""A fixture that fails in a fork. Each mutant would seem to be killed by that."""

MANY_THREADS = ("fifty_workers", "many_workers", "all_under_way", "probes_than_allowed")


def pytest_configure() -> None:
    """Examples do not depend on chance or on earlier runs.

    The process of each mutant is a fork. It does not look for garbage in what was imported before: that takes
    longer than most tests, and copies the memory.
    """
    gc.freeze()
    hypothesis.settings.register_profile(
        "mutants",
        hypothesis.settings.get_profile("any machine"),
        database=None,
        derandomize=True,
        max_examples=EXAMPLES,
        phases=(Phase.explicit, Phase.generate),
    )
    hypothesis.settings.load_profile("mutants")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the quick tests, which start no program, and have properties come last."""
    slow = [item for item in items if _is_slow(item)]
    config.hook.pytest_deselected(items=slow)
    for item in items:
        names = getattr(item, "fixturenames", [])
        if FOR_PROGRAMS in names:
            names.remove(FOR_PROGRAMS)
    took_s = _took_s()
    items[:] = sorted(
        (item for item in items if not _is_slow(item)),
        key=lambda item: (
            item.get_closest_marker("hypothesis") is not None,
            took_s.get(item.nodeid, 0.0),
            item.nodeid,
        ),
    )


def _took_s() -> dict[str, float]:
    """How long each test took when mutmut noted which functions it executes. Empty before that."""
    if not STATISTICS.exists():
        return {}
    took_s: dict[str, float] = json.loads(STATISTICS.read_text("utf-8"))["duration_by_test"]
    return took_s


def _is_slow(item: pytest.Item) -> bool:
    call = getattr(item, "callspec", None)
    versions = [] if call is None else [each for each in call.params.values() if each in REAL_VERSIONS]
    fixtures = set(getattr(item, "fixturenames", ()))
    return bool(versions or fixtures & REAL_SERVERS) or any(name in item.name for name in MANY_THREADS)
