"""`dispatcher list` and `dispatcher export`, as people run them."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
from typing import TYPE_CHECKING

import pytest
from pyarrow import parquet
from support.command_line import DISPATCHER
from support.command_line import dispatcher as run
from support.eventually import SET_BACK_MS
from support.plans import abort_plan
from support.steps import claim, finished

from dispatcher import Dispatcher, ExecutorRejectedError, RawObservation, Settings
from dispatcher.ledger.leases import Leases
from dispatcher.tasks.app import make_celery
from dispatcher.tasks.results import ResultCodec

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import redis

MARKUP = "[red]no[/red] \x1b[31m"


@pytest.fixture
def dispatcher(settings: Settings) -> Iterator[Dispatcher]:
    with Dispatcher(settings) as dispatcher:
        yield dispatcher


@pytest.fixture
def submitted(dispatcher: Dispatcher, settings: Settings, real_redis: redis.Redis) -> str:
    """An observed plan, one that failed and one in flight. Returns the id of the batch of the first two."""
    ids = ["seen", "refused"]
    batch = dispatcher.submit_many(
        [abort_plan(api=f"/{each}") for each in ids], plan_ids=ids, tags=["night", "run=7"]
    )
    dispatcher.submit(abort_plan(service="Other", api="/b"), plan_id="queued")
    for number, plan_id in enumerate(("queued", *reversed(ids))):  # the clock may be set back meanwhile
        real_redis.zincrby("{dispatcher}:history", -number * SET_BACK_MS * 1000, plan_id)
    leases, codec = Leases(real_redis, settings), ResultCodec(make_celery(settings))
    moment = dispatcher.server_time()
    observation = RawObservation(execution_id="f1", timestamp=moment, requests=9, error_rate=0.5, logs=["a"])
    error = ExecutorRejectedError(MARKUP, 400, "bad")
    outcomes: list[RawObservation | ExecutorRejectedError] = [observation, error]
    for plan_id, outcome in zip(ids, outcomes, strict=True):
        lease = claim(leases, plan_id, 0)
        assert lease is not None
        record = lease.record.ended(error) if outcome is error else lease.record.observed()
        finished(leases, lease, record)
        real_redis.set(codec.key(plan_id), codec.encode(plan_id, outcome))
    return batch.id


def ids(done: subprocess.CompletedProcess[str]) -> list[str]:
    assert done.returncode == 0, done.stderr
    return [json.loads(line)["id"] for line in done.stdout.splitlines()]


def test_list_shows_the_newest_first_page_by_page(submitted: str, redis_url: str) -> None:
    address = {"DISPATCHER_REDIS_URL": redis_url}
    done = run("list", "--json", "--limit", "2", **address)
    assert ids(done) == ["queued", "refused"]
    first, last = map(json.loads, done.stdout.splitlines())
    assert "cursor" not in first
    assert (last["tags"], last["batch"], last["state"]) == (["night", "run=7"], submitted, "failed")
    done = run("list", "--json", "--cursor", last["cursor"], **address)
    assert ids(done) == ["seen"]
    assert "cursor" not in json.loads(done.stdout)


def test_list_filters(submitted: str, redis_url: str) -> None:
    address = {"DISPATCHER_REDIS_URL": redis_url}
    for options, found in [
        (["--state", "observed", "--state", "queued"], ["queued", "seen"]),
        (["--target", "Other /b"], ["queued"]),
        (["--tag", "run=7", "--error", "ExecutorRejectedError"], ["refused"]),
        (["--batch", submitted], ["refused", "seen"]),
        (["--from", "1h"], ["queued", "refused", "seen"]),
        (["--to", "1h"], []),
    ]:
        assert ids(run("list", "--json", *options, **address)) == found, options
    for option, value, problem in [
        ("--error", "ExecutorRejectError", "did you mean ExecutorRejectedError"),
        ("--from", "yesterday", "--from: must be a date and time"),
        ("--cursor", "7", "cursor: must be one that an earlier page has returned"),
    ]:
        done = run("list", option, value, **address)
        assert done.returncode == 2
        assert problem in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("columns", ["60", "160"])
def test_a_list_for_people_shows_markup_as_it_is(submitted: str, redis_url: str, columns: str) -> None:
    environment = os.environ | {"DISPATCHER_REDIS_URL": redis_url, "COLUMNS": columns}
    done = subprocess.run(
        [DISPATCHER, "list"], capture_output=True, text=True, env=environment, timeout=60, check=True
    )
    assert all(each in done.stdout for each in ("seen", "refused", "queued", "night", "[red]", "\\x1b[31m"))
    assert "\x1b" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= int(columns)


def test_a_list_says_how_to_go_on_and_that_it_is_empty(submitted: str, redis_url: str) -> None:
    more = run("list", "--limit", "1", DISPATCHER_REDIS_URL=redis_url).stdout.splitlines()[-1]
    assert more.startswith("more with: --cursor ")
    assert run("list", "--tag", "none", DISPATCHER_REDIS_URL=redis_url).stdout == "no plans\n"


def test_an_export_has_the_plans_that_a_list_has(submitted: str, redis_url: str, tmp_path: Path) -> None:
    address = {"DISPATCHER_REDIS_URL": redis_url}
    done = run("export", "--tag", "night", **address)
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [(row["id"], row["error_rate"], row["error"]) for row in rows] == [
        ("refused", "", "ExecutorRejectedError"),
        ("seen", "0.5", ""),
    ]
    done = run("export", "--format", "jsonl", "--traces", "--state", "observed", **address)
    assert json.loads(done.stdout)["logs"] == ["a"]
    file = tmp_path / "plans.parquet"
    file.write_text("an older file")
    done = run("export", "--format", "parquet", "--output", str(file), "--limit", "2", **address)
    assert done.stderr == f"2 plans written to {file}\n"
    assert parquet.read_table(file)["id"].to_pylist() == ["queued", "refused"]
    assert list(tmp_path.iterdir()) == [file]


def test_a_file_that_cannot_be_written_is_one_line(submitted: str, redis_url: str, tmp_path: Path) -> None:
    done = run("export", "-o", str(tmp_path / "none" / "x.csv"), DISPATCHER_REDIS_URL=redis_url)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "x.csv cannot be written: No such file or directory" in done.stderr


def test_an_export_that_breaks_off_leaves_the_older_file(tmp_path: Path) -> None:
    file = tmp_path / "plans.csv"
    file.write_text("an older file")
    done = run("export", "--output", str(file), DISPATCHER_REDIS_URL="redis://127.0.0.1:1/0")
    assert done.returncode == 3
    assert file.read_text() == "an older file"
    assert list(tmp_path.iterdir()) == [file]


def test_a_data_frame_of_a_batch_has_a_row_for_each_plan_in_its_order(
    submitted: str, dispatcher: Dispatcher
) -> None:
    batch = dispatcher.batch(submitted)
    frame = batch.to_dataframe("polars")
    assert frame["id"].to_list() == ["seen", "refused"]
    assert frame["requests"].to_list() == [9, None]
    assert frame["error"].to_list() == [None, "ExecutorRejectedError"]
    late = abort_plan(start_time="2020-01-01T00:00:00Z")
    refused = dispatcher.submit_many([abort_plan(api="/new"), late]).to_dataframe()
    assert refused["error"].to_list() == [None, "InvalidPlanError"]
    assert refused["state"].to_list() == ["queued", None]
