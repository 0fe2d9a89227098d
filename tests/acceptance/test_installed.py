"""The wheel, installed and used in a folder whose own modules have the names of its packages."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest
from support.installed import Installed, build
from support.processes import Mark, Process

if TYPE_CHECKING:
    from pathlib import Path

    from support.stub_executor import StubExecutor

MOST_BYTES = 45_000_000
"""Of an installation without extras. docs/install.md names what it takes."""

NOT_OURS = "raise RuntimeError('the code of another project')\n"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """With the extras that the demo needs, and the size that it had without them."""
    folder = tmp_path_factory.mktemp("installed")
    wheel = build(folder / "dist")
    installed = Installed(folder / "venv")
    installed.install(wheel)
    assert installed.size() < MOST_BYTES, "an installation without extras grew"
    installed.install(wheel, "embedded", "executor")
    return installed


@pytest.fixture
def own_files(tmp_path: Path) -> Path:
    """A folder of another project."""
    for package in ("workers", "conformance"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text(NOT_OURS)
    (tmp_path / "executor.py").write_text(NOT_OURS)
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "default.toml").write_text("port: = 8080\n")
    return tmp_path


@pytest.fixture
def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


def test_the_demo_runs_next_to_modules_of_the_same_names_and_leaves_nothing_behind(
    installed: Installed, own_files: Path, environment: dict[str, str]
) -> None:
    mark = Mark()
    environment |= mark.environment | {"COLUMNS": "80"}
    done = run([installed.bin / "dispatcher", "demo"], own_files, environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("yes") == 6
    assert max(len(line) for line in done.stdout.splitlines()) <= 80
    assert mark.running() == []


@pytest.mark.parametrize(
    ("program", "on_the_path"),
    [
        (["celery", "--app", "dispatcher.worker_app", "worker"], False),
        (["dispatcher", "worker"], True),
    ],
    ids=["celery in the folder", "dispatcher with the folder on PYTHONPATH"],
)
def test_a_worker_runs_next_to_modules_of_the_same_names(
    program: list[str],
    on_the_path: bool,  # noqa: FBT001 (a parameter of the test)
    installed: Installed,
    own_files: Path,
    environment: dict[str, str],
    redis_url: str,
    stub: StubExecutor,
) -> None:
    environment |= {"DISPATCHER_REDIS_URL": redis_url, "DISPATCHER_EXECUTORS__DEFAULT__BASE_URL": stub.url}
    environment |= {"PYTHONPATH": str(own_files)} if on_the_path else {}
    name, *arguments = program
    command = [str(installed.bin / name), *arguments, "--loglevel", "INFO"]
    with Process(command, own_files / "worker.log", environment, cwd=own_files) as worker:
        worker.wait_until(lambda: " ready." in worker.output)
        done = run([installed.bin / "dispatcher", "health"], own_files, environment)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_module_that_hides_the_executor_is_named(
    installed: Installed, own_files: Path, environment: dict[str, str]
) -> None:
    environment |= {"PYTHONPATH": str(own_files)}
    done = run([installed.bin / "dispatcher", "up"], own_files, environment)
    assert done.returncode == 20
    assert f"error: {own_files / 'executor.py'} hides the reference Executor" in done.stderr


def test_the_default_configuration_is_installed_too(
    installed: Installed, own_files: Path, environment: dict[str, str]
) -> None:
    file = installed.bin.parent / "share" / "fault-dispatcher" / "default.toml"
    environment |= {"DISPATCHER_CONFIG": str(file)}
    shown = run([installed.bin / "dispatcher", "config", "show"], own_files, environment)
    assert f'logs.format = "text"  # {file}, line ' in shown.stdout


def run(
    command: list[Path | str], folder: Path, environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=200
    )
