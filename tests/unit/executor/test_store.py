"""What an Executor keeps on disk."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from executor.contract import FaultApply, FaultConfig
from executor.faults import Fault
from executor.observations import Arrival, End
from executor.store import Position, Store, Stored

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def fault(api: str = "/a", started: datetime = NOW) -> Fault:
    request = FaultApply(
        service="S",
        api=api,
        fault_type="abort",
        percentage=30,
        duration_seconds=5,
        fault_config=FaultConfig(http_status=503),
    )
    return Fault(request, f"key of {api}", started, not_after=NOW + timedelta(seconds=10), in_force=True)


def read(file: Path) -> list[Fault]:
    store = Store(file)
    faults = store.read().faults
    store.close()
    return faults


def whole(file: Path) -> Stored:
    with closing(Store(file)) as store:
        return store.read()


def test_a_store_that_is_new_has_nothing(tmp_path: Path) -> None:
    stored = whole(tmp_path / "new")
    assert (stored.faults, stored.position, stored.renewed_at) == ([], Position(), None)


def test_a_fault_is_read_as_it_was_saved(tmp_path: Path) -> None:
    kept = fault()
    kept.tally.begin(Arrival("1", kept.apply_id, True, 1.5, "GET /a"))
    kept.tally.end(End("1", kept.apply_id, True, 503, 2.5))
    kept.tally.begin(Arrival("2", kept.apply_id, False, 2.5, "GET /a"))
    kept.end_time, kept.doubt = NOW + timedelta(seconds=2), "restarted"
    store = Store(tmp_path / "faults")
    store.save([kept], position=Position(7, 1234), renewed_at=NOW)
    store.close()
    again = whole(tmp_path / "faults")
    [found] = again.faults
    assert (again.position, again.renewed_at) == (Position(7, 1234), NOW)
    assert found.tally.to_json() == kept.tally.to_json()
    found.tally = kept.tally
    assert found == kept


def test_the_last_state_counts_and_faults_come_in_the_order_of_their_starts(tmp_path: Path) -> None:
    store, first, second = (
        Store(tmp_path / "faults"),
        fault("/a", NOW),
        fault("/b", NOW + timedelta(seconds=1)),
    )
    store.save([second, first])
    first.error = "it failed"
    store.save([first])
    assert [(each.request.api, each.error) for each in store.read().faults] == [
        ("/a", "it failed"),
        ("/b", ""),
    ]
    store.close()


def test_what_is_gone_is_not_read(tmp_path: Path) -> None:
    store, kept = Store(tmp_path / "faults"), fault()
    store.save([kept])
    store.save(gone=[kept])
    assert store.read().faults == []
    store.close()


def test_two_stores_see_what_the_other_has_saved(tmp_path: Path) -> None:
    with closing(Store(tmp_path / "faults")) as store:
        store.save([fault()])
    assert len(read(tmp_path / "faults")) == 1


def test_a_file_that_is_not_a_store_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "faults").write_text("no database, although it has some length" * 100, "utf-8")
    with pytest.raises(ValueError, match=r"faults is damaged \(file is not a database\): .* move it away"):
        Store(tmp_path / "faults")


def test_a_file_that_was_emptied_does_not_pass_for_a_new_one(tmp_path: Path) -> None:
    (tmp_path / "faults").touch()
    with pytest.raises(ValueError, match=r"faults is damaged \(it is empty: "):
        Store(tmp_path / "faults")


def test_a_file_that_cannot_be_opened_is_not_called_damaged(tmp_path: Path) -> None:
    (tmp_path / "faults").mkdir()
    with pytest.raises(ValueError, match=r"faults cannot be used \(.*\).* it is not damaged"):
        Store(tmp_path / "faults")


def test_a_file_with_a_damaged_page_is_an_error(tmp_path: Path) -> None:
    store = Store(tmp_path / "faults")
    store.save([fault(f"/{number}") for number in range(50)])
    store.close()
    content = bytearray((tmp_path / "faults").read_bytes())
    content[3 * 4096 : 4 * 4096] = b"\xff" * 4096
    (tmp_path / "faults").write_bytes(content)
    with pytest.raises(ValueError, match=r"faults is damaged \(.*\): its faults end by themselves"):
        Store(tmp_path / "faults").read()


@pytest.mark.parametrize("record", ["{", "[]", "{}", '{"request": 7}', "null"])
def test_a_record_that_cannot_be_read_is_an_error(tmp_path: Path, record: str) -> None:
    store = Store(tmp_path / "faults")
    with sqlite3.connect(tmp_path / "faults") as db:
        db.execute("INSERT INTO faults VALUES ('f-1', ?)", [record])
    db.close()
    with pytest.raises(ValueError, match=r"faults is damaged \(\w+ in a record\)"):
        store.read()


def test_a_file_of_another_version_is_refused(tmp_path: Path) -> None:
    Store(tmp_path / "faults").close()
    with sqlite3.connect(tmp_path / "faults") as db:
        db.execute("UPDATE executor SET value = '99' WHERE name = 'version'")
    db.close()
    with pytest.raises(ValueError, match="version 99, and this Executor reads 1"):
        Store(tmp_path / "faults")
