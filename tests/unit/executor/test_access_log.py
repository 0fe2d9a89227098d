"""The access log is read as it grows, across files, and each line once."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest

from executor import access_log
from executor.access_log import AccessLog
from executor.control_plane import EnvoyError
from executor.store import Position

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class FakeEnvoy:
    """Writes lines as Envoy does: it begins a new file with its next line after it was asked to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.written = path.open("ab", buffering=0)
        self.asked_to_reopen = False
        self.begins_new_files = True
        self.marks = 0

    def write(self, line: bytes) -> None:
        if self.asked_to_reopen and self.begins_new_files:
            self.written.close()
            self.written = self.path.open("ab", buffering=0)
            self.asked_to_reopen = False
        self.written.write(line)

    def arrive(self, stream: str) -> None:
        fields = {"kind": "DownstreamStart", "stream": stream, "fault_id": "f1", "chosen": True}
        moments = {"arrived_at": "1.5", "start_time": "-", "method": "GET", "path": "/a"}
        self.write(json.dumps(fields | moments).encode() + b"\n")

    async def reopen_logs(self) -> None:
        self.asked_to_reopen = True

    async def mark_log(self) -> int:
        self.marks += 1
        self.write(json.dumps({"mark": f"/ready?mark={self.marks}"}).encode() + b"\n")
        return self.marks


@pytest.fixture
def envoy(tmp_path: Path) -> Iterator[FakeEnvoy]:
    fake = FakeEnvoy(tmp_path / "access.log")
    yield fake
    fake.written.close()


def streams(log: AccessLog) -> list[str]:
    return [news.stream for news in log.news()]


def rotate(log: AccessLog, envoy: FakeEnvoy) -> list[str]:
    return [news.stream for news in asyncio.run(log.rotate(envoy.mark_log, envoy.reopen_logs))]


def test_a_log_that_does_not_exist_yet_has_no_news(tmp_path: Path) -> None:
    assert streams(AccessLog(tmp_path / "none.log")) == []


def test_each_line_is_news_once(envoy: FakeEnvoy) -> None:
    log = AccessLog(envoy.path)
    envoy.arrive("1")
    assert streams(log) == ["1"]
    envoy.arrive("2")
    assert streams(log) == ["2"]
    assert streams(log) == []


def test_half_a_line_is_read_when_its_rest_is_there(envoy: FakeEnvoy) -> None:
    log = AccessLog(envoy.path)
    envoy.write(b'{"mark": "/ready')
    assert (streams(log), log.read_to_mark) == ([], 0)
    envoy.write(b'?mark=5"}\n')
    assert (streams(log), log.read_to_mark) == ([], 5)


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(b"\n", id="an empty line"),
        pytest.param(
            b'{"kind": "Downstr{"mark": "/ready?mark=1"}\n', id="the begin of one line, and another"
        ),
        pytest.param(b"[]\n", id="no object"),
        pytest.param(b"{}\n", id="an object without fields"),
        pytest.param(b"\xff\n", id="no text"),
        pytest.param(b'{"mark": "/ready?mark=x"}\n', id="a mark without a number"),
    ],
)
def test_a_damaged_line_of_the_log_is_skipped_and_may_have_been_a_request(
    envoy: FakeEnvoy, line: bytes
) -> None:
    log = AccessLog(envoy.path)
    envoy.write(line)
    envoy.arrive("1")
    assert (streams(log), log.cut) == (["1"], True)


def test_a_log_that_has_gone_since_an_earlier_executor_read_it_is_cut(envoy: FakeEnvoy) -> None:
    log = AccessLog(envoy.path)
    envoy.arrive("1")
    assert streams(log) == ["1"]
    position = log.position
    later = AccessLog(envoy.path)
    later.restore(position)
    assert (streams(later), later.cut) == ([], False)
    envoy.path.rename(envoy.path.with_suffix(".moved"))
    later = AccessLog(envoy.path)
    later.restore(position)
    assert later.cut
    later = AccessLog(envoy.path)
    later.restore(Position())
    assert not later.cut


def test_marks_that_were_read_are_known(envoy: FakeEnvoy) -> None:
    log = AccessLog(envoy.path)
    mark = asyncio.run(envoy.mark_log())
    assert not log.has(mark)
    assert streams(log) == []
    assert (log.has(mark), log.has(mark + 1)) == (True, False)


def test_no_line_is_lost_or_read_twice_when_a_new_file_begins(
    envoy: FakeEnvoy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access_log, "ROTATE_AT_BYTES", 1)
    log = AccessLog(envoy.path)
    envoy.arrive("1")
    assert streams(log) == ["1"]
    envoy.arrive("2")
    envoy.begins_new_files = False
    assert rotate(log, envoy) == []
    envoy.arrive("3")
    assert streams(log) == ["2", "3"]
    envoy.arrive("4")
    envoy.begins_new_files = True
    assert rotate(log, envoy) == ["4"]
    envoy.arrive("5")
    assert streams(log) == ["5"]
    assert [path.name for path in envoy.path.parent.iterdir()] == ["access.log"]


def test_envoy_is_asked_for_a_new_file_until_it_begins_one(
    envoy: FakeEnvoy, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refused() -> None:
        raise EnvoyError("it does not answer")

    monkeypatch.setattr(access_log, "ROTATE_AT_BYTES", 1)
    log = AccessLog(envoy.path)
    envoy.arrive("1")
    assert streams(log) == ["1"]
    with pytest.raises(EnvoyError):
        asyncio.run(log.rotate(envoy.mark_log, refused))
    envoy.arrive("2")
    assert rotate(log, envoy) == []
    assert rotate(log, envoy) == ["2"]
    assert not log.cut


def test_a_log_that_something_has_cut_is_read_on_and_says_so(envoy: FakeEnvoy) -> None:
    log = AccessLog(envoy.path)
    envoy.arrive("1")
    assert (streams(log), log.cut) == (["1"], False)
    envoy.written.truncate(0)
    assert (streams(log), log.cut) == ([], True)
    envoy.arrive("2")
    assert streams(log) == ["2"]


def test_a_log_that_something_has_removed_is_missing_until_envoy_begins_a_new_one(envoy: FakeEnvoy) -> None:
    log = AccessLog(envoy.path)
    envoy.arrive("1")
    assert (streams(log), log.missing) == (["1"], False)
    envoy.path.unlink()
    assert (streams(log), log.cut, log.missing) == ([], True, True)
    asyncio.run(envoy.reopen_logs())
    envoy.arrive("2")
    assert (streams(log), log.missing) == (["2"], False)


@pytest.mark.parametrize("since", [1, 2, 30])
def test_a_log_that_was_cut_and_has_grown_again_says_so(envoy: FakeEnvoy, since: int) -> None:
    log = AccessLog(envoy.path)
    envoy.arrive("a")
    assert streams(log) == ["a"]
    envoy.arrive("lost")
    envoy.written.truncate(0)
    for number in range(since):
        envoy.arrive(str(number))
    assert (streams(log), log.cut) == ([str(number) for number in range(since)], True)


def test_another_file_in_the_place_of_the_log_is_read_from_its_begin(
    envoy: FakeEnvoy, tmp_path: Path
) -> None:
    log = AccessLog(envoy.path)
    envoy.arrive("1")
    assert streams(log) == ["1"]
    other = FakeEnvoy(tmp_path / "other.log")
    for stream in ("2", "3"):
        other.arrive(stream)
    other.written.close()
    other.path.replace(envoy.path)
    assert (streams(log), log.cut) == (["2", "3"], True)
