"""The shell completes commands, and the names of configured Executors: real shells, on a terminal."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.command_line import DISPATCHER, dispatcher
from support.programs import program
from support.terminal import Terminal

if TYPE_CHECKING:
    from collections.abc import Iterator

TAB, TO_THE_FRONT, ENTER = "\t", "\x01", "\r"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    home = tmp_path_factory.mktemp("home")
    path = f"{Path(DISPATCHER).parent}:{os.environ['PATH']}"
    return {"HOME": str(home), "PATH": path, "DISPATCHER_CONFIG": str(home / "settings.toml")}


@pytest.fixture
def settings(environment: dict[str, str]) -> Path:
    settings = Path(environment["DISPATCHER_CONFIG"])
    settings.write_text("[executors.default]\n[executors.staging]\n")
    return settings


@pytest.fixture(scope="module", params=["bash", "zsh"])
def shell(request: pytest.FixtureRequest, environment: dict[str, str]) -> Iterator[Terminal]:
    """One that was started after `dispatcher --install-completion`."""
    name = str(request.param)
    done = subprocess.run(
        [
            program(name),
            "-c",
            "dispatcher --install-completion; exit",
        ],  # with a second command, or it would not be a child
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"{name} completion installed" in done.stdout, done.stderr
    with Terminal([name, "-i"], environment) as terminal:
        completed(terminal, "dispatcher resum")  # zsh loads a completion with its first use, and does no more
        yield terminal


def completed(shell: Terminal, line: str) -> str:
    """What the shell makes of a line when the tab key is pressed."""
    shell.type(f"{line}{TAB}{TO_THE_FRONT}echo '[' {ENTER}")
    shell.until_seen("\n[ ")
    return shell.until_seen("\r\n")


def test_commands_and_their_options_are_completed(shell: Terminal) -> None:
    assert completed(shell, "dispatcher cance") == "dispatcher cancel"
    assert completed(shell, "dispatcher breaker dis") == "dispatcher breaker disable"
    assert completed(shell, "dispatcher watch --cau") == "dispatcher watch --causes"


@pytest.mark.usefixtures("settings")
def test_the_names_of_configured_executors_are_completed(shell: Terminal) -> None:
    line = "dispatcher breaker open --executor st"
    assert completed(shell, line) == f"{line}aging"


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("dispatcher plan ch", "check"),
        ("dispatcher watch --cau", "--causes"),
        ("dispatcher submit --conf", "--conflict-policy"),
        *(
            (f"dispatcher {command} --executor st", "staging")
            for command in ("run", "health", "breaker open", "metrics", "plan check", "release a /a")
        ),
    ],
)
@pytest.mark.usefixtures("settings")
def test_fish_gets_the_same_offers(environment: dict[str, str], typed: str, offered: str) -> None:
    """By the questions that its script asks: few machines have fish."""
    asked = {"_TYPER_COMPLETE_ARGS": typed, "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    done = dispatcher(**environment, **asked, _DISPATCHER_COMPLETE="complete_fish")
    assert [line.partition("\t")[0] for line in done.stdout.splitlines()] == [offered]


def test_bad_settings_complete_nothing_and_say_nothing(shell: Terminal, settings: Path) -> None:
    settings.write_text("no TOML")
    line = "dispatcher run --executor st"
    assert completed(shell, line) == line
    assert "error" not in shell.seen
