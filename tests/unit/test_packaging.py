"""The wheel holds what the programs need, and the lock files hold what pyproject.toml asks for."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tomllib
from email.parser import Parser
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from support.installed import build

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PROJECT = PYPROJECT["project"]
PACKAGES = PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
DEVELOPMENT = ROOT / "requirements" / "development.txt"
IMAGE = ROOT / "requirements" / "image.txt"
INSTALLER = ROOT / "requirements" / "uv.txt"
LOWEST = ROOT / ".ci" / "lowest.txt"
PYTHONS = ("3.11", "3.12", "3.13")
PIN = re.compile(r"^([\w.-]+==[^\\\n]+?) \\\n((?: +--hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", re.MULTILINE)

LOCKS = [DEVELOPMENT, IMAGE, INSTALLER, LOWEST]

every_lock = pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
every_python = pytest.mark.parametrize("python", PYTHONS)


def asked(*, extras: Iterable[str] = (), groups: Iterable[str] = ()) -> Iterator[Requirement]:
    """The requirements of pyproject.toml."""
    lists = [PROJECT["dependencies"] if extras else []]
    lists += [PROJECT["optional-dependencies"][extra] for extra in extras]
    lists += [PYPROJECT["dependency-groups"][group] for group in groups]
    found = (Requirement(each) for requirements in lists for each in requirements)
    return (each for each in found if each.name != PROJECT["name"])  # the extra `all` names the others


def applies(requirement: Requirement, python: str) -> bool:
    environment = {"python_version": python, "python_full_version": f"{python}.9", "sys_platform": "linux"}
    return requirement.marker is None or requirement.marker.evaluate(environment)


def pinned(lock: Path, python: str) -> dict[str, Version]:
    """The version of each package that the lock file installs on Linux."""
    requirements = [Requirement(pin) for pin, _ in PIN.findall(lock.read_text("utf-8"))]
    return {
        canonicalize_name(each.name): Version(str(each.specifier).removeprefix("=="))
        for each in requirements
        if applies(each, python)
    }


def lowest(requirement: Requirement) -> Version:
    """The lower bound of a requirement."""
    return next(Version(each.version) for each in requirement.specifier if each.operator == ">=")


ALL = PROJECT["optional-dependencies"]
CONTENTS = [
    (DEVELOPMENT, list(asked(extras=ALL, groups=["build"]))),
    (IMAGE, list(asked(extras=["executor", "flower", "otel"], groups=["build"]))),
    (INSTALLER, list(asked(groups=["installer"]))),
    (LOWEST, list(asked(extras=ALL, groups=["build"]))),
]


@every_python
@pytest.mark.parametrize(("lock", "requirements"), CONTENTS, ids=[lock.name for lock, _ in CONTENTS])
def test_a_lock_file_holds_what_pyproject_asks_for(
    lock: Path, requirements: list[Requirement], python: str
) -> None:
    versions = pinned(lock, python)
    for each in requirements:
        if applies(each, python):
            assert versions[canonicalize_name(each.name)] in each.specifier, f"{each}: run `make lock`"


@every_python
def test_the_lowest_versions_are_those_that_pyproject_permits(python: str) -> None:
    versions = pinned(LOWEST, python)
    for each in asked(extras=ALL, groups=["build"]):
        if applies(each, python):
            advice = f"{each}: run `make lock`, or raise the lower bound"
            assert versions[canonicalize_name(each.name)] == lowest(each), advice


@every_python
def test_the_image_installs_the_versions_that_are_tested(python: str) -> None:
    assert pinned(IMAGE, python).items() <= pinned(DEVELOPMENT, python).items()


@every_lock
def test_every_line_of_a_lock_file_is_a_pin_with_hashes(lock: Path) -> None:
    rest = PIN.sub("", lock.read_text("utf-8"))
    assert [line for line in rest.splitlines() if line.strip() and not line.strip().startswith("#")] == []


@every_lock
def test_a_lock_file_names_no_machine(lock: Path) -> None:
    assert not re.search(r"://|--(extra-)?index-url|--find-links|#.*\s/", lock.read_text("utf-8"))


def test_the_classifiers_name_the_pythons_for_which_the_lock_files_hold() -> None:
    prefix = "Programming Language :: Python :: "
    named = [each.removeprefix(prefix) for each in PROJECT["classifiers"] if each.startswith(prefix)]
    assert tuple(named) == PYTHONS


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the source package."""
    return build(tmp_path_factory.mktemp("dist")).parent


def test_the_wheel_holds_the_licence_and_every_file_that_the_packages_read(distributions: Path) -> None:
    with ZipFile(next(distributions.glob("*.whl"))) as wheel:
        names = set(wheel.namelist())
        information = next(name.rpartition("/")[0] for name in names if name.endswith("/METADATA"))
        metadata = Parser().parsestr(wheel.read(f"{information}/METADATA").decode())
        licence = wheel.read(f"{information}/licenses/LICENSE").decode()
    assert metadata["License-Expression"] == "Apache-2.0"
    assert "Apache License\n                           Version 2.0" in licence
    files = [file for package in PACKAGES for file in (ROOT / package).rglob("*") if file.is_file()]
    read = {str(file.relative_to(ROOT)) for file in files if "__pycache__" not in file.parts}
    assert read <= names
    assert {f"{package}/py.typed" for package in PACKAGES} <= names


def test_a_wheel_can_be_built_from_the_source_package(distributions: Path, tmp_path: Path) -> None:
    with tarfile.open(next(distributions.glob("*.tar.gz"))) as source:
        source.extractall(tmp_path, filter="data")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(command, cwd=next(tmp_path.iterdir()), check=True, capture_output=True)
    assert names_in(next(tmp_path.glob("*.whl"))) == names_in(next(distributions.glob("*.whl")))


@pytest.mark.parametrize(
    ("program", "pattern"), [(["twine", "check", "--strict"], "*"), (["check_wheel_contents"], "*.whl")]
)
def test_an_index_takes_both(distributions: Path, program: list[str], pattern: str) -> None:
    command = [sys.executable, "-m", *program, *map(str, distributions.glob(pattern))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_extra_all_is_every_extra_for_people() -> None:
    [every] = map(Requirement, PROJECT["optional-dependencies"]["all"])
    assert every.extras == set(PROJECT["optional-dependencies"]) - {"all", "bench", "dev", "docs", "examples"}


def names_in(wheel: Path) -> set[str]:
    with ZipFile(wheel) as opened:
        return set(opened.namelist())
