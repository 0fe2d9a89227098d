"""Who may use the Executor's API."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from executor.access import is_loopback, refuse_an_open_door, token_of

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.9.10", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.1.2.3", False),
        ("", False),
    ],
)
def test_only_this_machine_reaches_a_loopback_address(host: str, *, loopback: bool) -> None:
    assert is_loopback(host) == loopback


def test_a_name_without_an_address_is_named() -> None:
    with pytest.raises(OSError, match=r"^no\.such\.host\.invalid: "):
        is_loopback("no.such.host.invalid")


def test_other_machines_need_a_token() -> None:
    with pytest.raises(
        ValueError, match=r"^--host 0\.0\.0\.0 lets in other machines, and no token is set: give --tok"
    ):
        refuse_an_open_door("0.0.0.0", None)
    refuse_an_open_door("0.0.0.0", "token")
    refuse_an_open_door("127.0.0.1", None)


def test_without_a_token_there_is_none() -> None:
    assert token_of("", None) is None
    assert token_of("given", None) == "given"


def test_a_file_that_does_not_exist_is_made_once_and_for_its_owner(tmp_path: Path) -> None:
    file = tmp_path / "new" / "token"
    token = token_of("", file)
    assert token is not None
    assert len(token) >= 40
    assert token_of("", file) == token
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [each.name for each in file.parent.iterdir()] == ["token"]


def test_all_that_make_a_file_at_the_same_time_have_the_same_token(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        tokens = set(pool.map(lambda _: token_of("", tmp_path / "token"), range(64)))
    assert len(tokens) == 1


def test_a_file_may_be_written_by_hand(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("by-hand\n", "utf-8")
    assert token_of("", file) == "by-hand"


@pytest.mark.parametrize("text", ["", "\n", "two words", "naïve"])
def test_a_file_without_a_token_is_named_and_its_text_is_not(tmp_path: Path, text: str) -> None:
    file = tmp_path / "token"
    file.write_text(text, "utf-8")
    with pytest.raises(ValueError, match="holds no token") as caught:
        token_of("", file)
    assert str(file) in str(caught.value)
    assert not text.strip() or text not in str(caught.value)


def test_a_token_has_one_place(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="exclude each other"):
        token_of("given", tmp_path / "token")
    assert not (tmp_path / "token").exists()
