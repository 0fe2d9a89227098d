"""Each block of code on a page is of a kind that a test checks, and each command in it exists.

The Python on pages runs in tests/acceptance/test_documents.py; blocks of settings are in test_documents.py.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import re
import tomllib
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol, cast

import pytest
import typer
import yaml
from celery.bin.celery import celery
from support.pages import ALL_PAGES, ROOT, Block, blocks_of, commands_of, inline_commands

from dispatcher import FaultPlan
from dispatcher.cli import whole_app

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SHELL = {"bash", "console", "sh"}
CHECKED = SHELL | {"json", "jsonl", "python", "toml", "yaml"}
SHOWN = {"", "text"}
"""Output, drawings, and files of other programs. Calls of ours among them are checked all the same."""

FOREIGN = {
    *("cat", "cd", "cp", "curl", "docker", "echo", "export", "git", "grep", "jq", "kill", "kubectl", "less"),
    *("ls", "mkdir", "redis-cli", "redis-server", "sed", "source", "tail", "tee", "unset", "watch"),
}
"""Programs whose options are not ours to check."""

SHORTEST_REASON = 3
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
EXTRAS = set(PYPROJECT["project"]["optional-dependencies"])
TARGETS = set(re.findall(r"^([a-z-]+)[a-z -]*:", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))["services"]
PROFILES = {profile for service in COMPOSE.values() for profile in service.get("profiles", ())}
OMITTED = re.compile(
    r"Missing (argument|option|parameter|command)|requires an argument|^Usage: \S+( \w+)? \[OPTIONS\] COMMAND"
    r"|^Shell \w+ is not supported"
)


class Command(Protocol):
    """What a command of ours is to the library of command lines."""

    callback: Callable[..., object] | None
    commands: dict[str, Command]

    def __call__(self, args: list[str]) -> object: ...


@cache
def command_line() -> Command:
    """Ours, with commands that read their arguments and do nothing."""
    group = cast("Command", typer.main.get_command(whole_app()))
    silence(group)
    return group


def silence(command: Command) -> None:
    command.callback = nothing
    for inner in getattr(command, "commands", {}).values():
        silence(inner)


def nothing(**_: Any) -> None:
    """A command without an effect."""


def parsed(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What the command line says against these arguments. Empty if it takes them."""
    with pytest.raises(SystemExit) as ended:
        command_line()(words)
    printed = capsys.readouterr()
    if ended.value.code in {0, None}:
        return ""
    return " ".join(re.sub("[╭─╮│╰╯]", " ", printed.err + printed.out).split()) or "refused"


def problem_with(words: list[str], page: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Why a command on a page cannot be right. Empty if it can."""
    program, *rest = words
    if program == "xargs":
        return problem_with([*(word for word in rest if word != "-r"), "ID"], page, capsys)
    if program == "dispatcher":
        return parsed(rest, capsys)
    if program in {"python", "python3", "celery", "make", "pip"}:
        return OWN[program.removesuffix("3")](rest, page)
    if program == "docker":
        return _of_docker(rest)
    return "" if program in FOREIGN else f"{program} is not a program that this test knows"


def _of_make(rest: list[str], page: Path) -> str:
    del page
    wrong = {word for word in rest if "=" not in word} - TARGETS
    return f"no such target: {wrong}" if wrong else ""


def _of_python(rest: list[str], page: Path) -> str:
    options = [word for word in rest if not re.fullmatch(r"-[PIq]", word)]
    if options[:1] == ["-m"]:
        return "" if importlib.util.find_spec(options[1]) else f"no module {options[1]}"
    file = options[0]
    known = (ROOT / file).is_file() or f"`{file}`" in page.read_text("utf-8")
    return "" if known or file.startswith("-") else f"no file {file}, and the page does not write one"


def _of_celery(rest: list[str], page: Path) -> str:
    del page
    module = rest[rest.index("--app") + 1] if "--app" in rest else rest[rest.index("-A") + 1]
    if importlib.util.find_spec(module.partition(":")[0]) is None:
        return f"no module {module}"
    return "" if set(celery.commands) & set(rest) else "no command of Celery's"


def _of_pip(rest: list[str], page: Path) -> str:
    del page
    asked = {
        extra for word in rest for found in re.findall(r"\[([\w,]+)\]", word) for extra in found.split(",")
    }
    return f"no such extra: {asked - EXTRAS}" if asked - EXTRAS else ""


def _of_docker(rest: list[str]) -> str:
    profiles = {after for word, after in itertools.pairwise(rest) if word == "--profile"}
    scaled = {after.partition("=")[0] for word, after in itertools.pairwise(rest) if word == "--scale"}
    wrong = profiles - PROFILES | scaled - set(COMPOSE)
    return f"not in docker-compose.yml: {wrong}" if wrong else ""


OWN = {"celery": _of_celery, "make": _of_make, "pip": _of_pip, "python": _of_python}


@cache
def every_block() -> list[tuple[Path, Block]]:
    return [(page, block) for page in ALL_PAGES for block in blocks_of(page)]


def test_each_block_is_of_a_kind_that_is_checked_or_says_why_it_is_not() -> None:
    for page, block in every_block():
        assert block.language in CHECKED | SHOWN, (page, block.line, block.language)
        assert block.reason is None or len(block.reason.split()) >= SHORTEST_REASON, (page, block.line)


def test_each_command_on_a_page_exists_with_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    for page, block in every_block():
        if page.name == "cli.md":
            continue  # synopses, made from the commands themselves
        commands = commands_of(block) if block.language in SHELL else calls_among_output(block)
        for words in commands if block.reason is None else []:
            assert problem_with(words, page, capsys) == "", (page, block.line, words)


def calls_among_output(block: Block) -> list[list[str]]:
    """Lines of an unmarked block that begin with a call of ours."""
    if block.language not in SHOWN:
        return []
    whole = block.text.replace("\\\n", " ").splitlines()
    lines = [line for line in whole if re.match(r"\$? ?(dispatcher|make) [a-z]", line)]
    return commands_of(Block("console", "\n".join(lines), None, block.line))


def test_each_call_in_a_sentence_exists_with_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    for page in ALL_PAGES:
        for words in inline_commands(page, "dispatcher"):
            if words[1:2] != ["COMMAND"]:
                said = parsed(words[1:], capsys)
                assert not said or OMITTED.search(said), (page, words, said)
        for words in inline_commands(page, "make"):
            assert _of_make(words[1:], page) == "", (page, words)


def test_each_block_of_data_can_be_read() -> None:
    for _, block in every_block():
        if block.reason is not None:
            continue
        if block.language == "json":
            json.loads(block.text)
        if block.language == "jsonl":
            assert all(isinstance(json.loads(line), dict) for line in block.text.splitlines())
        if block.language == "yaml":
            for each in yaml.safe_load(block.text):
                FaultPlan.model_validate(each)


def test_each_extra_is_on_the_page_about_installation() -> None:
    page = (ROOT / "docs" / "install.md").read_text("utf-8")
    for extra in EXTRAS - {"bench", "dev", "docs"}:
        assert f"| `{extra}` |" in page, extra


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("dispatcher submit plans.yaml --executor staging", ""),
        ("dispatcher submit plans.yaml --no-such-option", "No such option"),
        ("dispatcher vanish", "No such command"),
        ("dispatcher result ID --timeout-sec soon", "Invalid value"),
        ("xargs -r dispatcher cancel a b", ""),
        ("make demo", ""),
        ("make wonders", "no such target"),
        ("python -m no_such_module", "no module"),
        ("python -m executor --help", ""),
        ("python missing.py", "no file"),
        ("pip install 'fault-dispatcher[embedded,executor]'", ""),
        ("pip install 'fault-dispatcher[wonders]'", "no such extra"),
        ("celery --app workers.app worker", ""),
        ("celery --app nowhere worker", "no module"),
        ("celery --app workers.app wonders", "no command of Celery's"),
        ("docker compose --profile monitoring up --scale worker=4", ""),
        ("docker compose --profile wonders up", "not in docker-compose.yml"),
        ("teleport now", "not a program"),
    ],
)
def test_a_wrong_command_is_found_and_a_right_one_is_not(
    command: str, problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    [words] = commands_of(Block("console", command, None, 1))
    said = problem_with(words, ROOT / "README.md", capsys)
    assert (problem in said) if problem else said == ""


def test_commands_are_taken_out_of_pipes_prompts_and_redirections() -> None:
    text = "$ A=b one --x 'two words' | three > file  # why\noutput\n$ four && five \\\n  six\n"
    assert commands_of(Block("console", text, None, 1)) == [
        ["one", "--x", "two words"],
        ["three"],
        ["four"],
        ["five", "six"],
    ]


def test_a_block_may_say_why_it_is_not_run(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "text\n\n<!-- not run: it needs a cluster -->\n```console\nkubectl\n```\n\n```json\n{}\n```\n"
    )
    assert blocks_of(page) == [
        Block("console", "kubectl\n", "it needs a cluster", 4),
        Block("json", "{}\n", None, 8),
    ]
