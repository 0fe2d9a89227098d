"""The Python in README.md and docs/ runs, against a real Redis and a real worker."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from support.plans import abort_plan

import dispatcher as public
from dispatcher import Dispatcher, FaultPlan

if TYPE_CHECKING:
    from support.processes import Workers
    from support.stub_executor import StubExecutor

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", "docs/drivers.md", "docs/history.md", "docs/recommender.md", "docs/timeouts.md"]
STAND_ALONE = {"README.md", "docs/history.md", "docs/recommender.md"}
"""Pages whose blocks run by themselves, each without any other."""

BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", PAGES)
def test_the_code_on_a_page_runs(
    page: str, start: Workers, stub: StubExecutor, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(stub.url)
    monkeypatch.setenv("DISPATCHER_REDIS_URL", redis_url)
    names: dict[str, object] = {name: getattr(public, name) for name in public.__all__}
    names |= {"plan": abort_plan()}
    for code in blocks(page):
        with Dispatcher() as client:
            given = {} if page in STAND_ALONE else names | {"dispatcher": client}
            exec(compile(code.replace("http://executor:8000", stub.url), page, "exec"), given)
    assert stub.applied


def blocks(page: str) -> list[str]:
    """The Python on a page, with short faults."""
    found = BLOCK.findall((ROOT / page).read_text("utf-8"))
    assert found
    return [re.sub(r"duration_seconds=\d+", "duration_seconds=1", block) for block in found]


def test_the_plan_file_in_the_readme_is_valid() -> None:
    [block] = re.findall(
        r"^```yaml\n(.*?)^```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    assert [FaultPlan.model_validate(each).duration_seconds for each in yaml.safe_load(block)] == [30]
