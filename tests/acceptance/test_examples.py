"""The examples run as they are."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.eventually import eventually
from support.processes import WarmProcess

from executor.sample_service import PATIENCE_S

if TYPE_CHECKING:
    from support.processes import ExecutorProcess, Workers
    from support.stub_executor import StubExecutor

    from dispatcher import Dispatcher

RECOMMENDER = Path(__file__).parents[2] / "examples" / "recommender.py"


def recommender(redis_url: str, folder: Path, *options: str) -> WarmProcess:
    """Prints into `folder`, and keeps its studies there."""
    return WarmProcess(
        [str(RECOMMENDER), *options],
        folder / "out",
        {"DISPATCHER_REDIS_URL": redis_url},
        errors=folder / "errors",
        cwd=folder,
    )


def outcome(redis_url: str, folder: Path, *options: str) -> tuple[int, list[str], str]:
    """The exit code of a whole run, its lines, and its errors."""
    for name in ("out", "errors"):
        (folder / name).unlink(missing_ok=True)
    with recommender(redis_url, folder, *options) as process:
        code = process.wait()
    return code, process.output.splitlines(), (folder / "errors").read_text()


@pytest.mark.lasts_long
def test_the_recommender_finds_the_weakness_of_the_sample_services_within_60_trials(
    start: Workers, executor: ExecutorProcess, redis_url: str, tmp_path: Path
) -> None:
    start(executor.url)
    code, lines, err = outcome(redis_url, tmp_path, "--rounds", "20", "--until", "0.5", "--seed", "7")
    assert (code, err) == (0, "")
    *trials, last = lines
    assert len(trials) <= 60
    found = re.fullmatch(
        r"worst of (\d+): delay ([0-9.]+) s, \d+ % of InventoryService /api/v1/stock, 2 s -> harm ([0-9.]+)",
        last,
    )
    assert found is not None, "\n".join(lines)
    assert int(found[1]) == len(trials)
    assert float(found[2]) > PATIENCE_S
    assert float(found[3]) >= 0.5


def test_a_recommender_that_met_a_halt_and_was_killed_goes_on_with_its_search(
    start: Workers, stub: StubExecutor, dispatcher: Dispatcher, redis_url: str, tmp_path: Path
) -> None:
    start(stub.url)
    options = ["--rounds", "2", "--seed", "7", "--search", "monday"]
    dispatcher.halt("a smoke test")
    code, lines, err = outcome(redis_url, tmp_path, *options)
    assert (code, lines) == (1, [])
    assert err.startswith("the search is interrupted: the dispatcher is halted (a smoke test)")
    assert err.count("\n") == 1
    dispatcher.resume()
    with recommender(redis_url, tmp_path, *options) as killed:
        eventually(lambda: "monday-0" in stub.requests)
        killed.kill()
    assert killed.output == ""  # it has no observation of a trial yet
    code, lines, err = outcome(redis_url, tmp_path, *options)
    assert (code, err) == (0, "")
    assert lines[-1].startswith("worst of 6: ")
    baselines = {f"monday-baseline-{number}" for number in range(3)}
    assert set(stub.requests) == baselines | {f"monday-{number}" for number in range(6)}
    assert sum(stub.applied.values()) == 9


def test_a_fault_that_failed_for_other_reasons_gets_another_trial(
    start: Workers, stub: StubExecutor, redis_url: str, tmp_path: Path
) -> None:
    start(stub.url, DISPATCHER_EXECUTORS__DEFAULT__MAX_RETRIES="0")
    options = ["--seed", "7", "--search", "monday"]
    code, lines, err = outcome(redis_url, tmp_path, *options, "--rounds", "0")  # only the baselines
    assert (code, lines, err) == (1, [], "no fault was observed\n")
    stub.answers.extend([(503, {"message": "not now"})])
    code, lines, err = outcome(redis_url, tmp_path, *options, "--rounds", "2")
    assert (code, err) == (0, "")
    trials = [re.fullmatch(r"trial \d: (.+?) -> (.+)", line) for line in lines[:-1]]
    failed = [found[1] for found in trials if found and "not now" in found[2]]
    again = [found[1] for found in trials if found and "harm" in found[2]]
    assert len(failed) == 1
    assert failed[0] in again
