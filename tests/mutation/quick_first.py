"""A plugin of pytest for runs over mutants: examples are the same each time, and properties come last.

A property that fails is not simplified, because only that it fails is of interest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import hypothesis
from hypothesis import Phase

if TYPE_CHECKING:
    import pytest

EXAMPLES = 50


def pytest_configure() -> None:
    """Properties have the same few examples in each run."""
    hypothesis.settings.register_profile(
        "mutants",
        hypothesis.settings.get_profile("any machine"),
        database=None,
        derandomize=True,
        max_examples=EXAMPLES,
        phases=(Phase.explicit, Phase.generate),
    )
    hypothesis.settings.load_profile("mutants")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of one example are quick, and kill most mutants."""
    items.sort(key=lambda item: (item.get_closest_marker("hypothesis") is not None, item.nodeid))
