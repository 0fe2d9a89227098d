"""The packages that are installed next to `dispatcher` are found, even if others have their names."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from dispatcher.own_packages import FOLDER

if TYPE_CHECKING:
    from pathlib import Path

FOREIGN = {"a package": "workers/__init__.py", "a module": "workers.py"}


def python(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """The program, in this folder, whose modules come first."""
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize("file", FOREIGN.values(), ids=FOREIGN)
def test_a_foreign_one_on_the_path_is_passed_over(file: str, tmp_path: Path) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text("")
    code = (
        "from dispatcher.own_packages import import_own; import_own('workers'); import workers.shield as it"
    )
    done = python(f"{code}; print(it.__file__)", tmp_path)
    assert (done.stdout, done.stderr) == (f"{FOLDER / 'workers' / 'shield.py'}\n", "")


@pytest.mark.parametrize("file", FOREIGN.values(), ids=FOREIGN)
def test_a_foreign_one_that_is_imported_already_is_named(file: str, tmp_path: Path) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text("")
    code = "import workers, dispatcher\ntry: import dispatcher.worker_app\n"
    done = python(code + "except dispatcher.InvalidSettingsError as error: print(error)", tmp_path)
    assert done.stdout.startswith(f"{tmp_path / file} is in the way: "), done.stderr


def test_a_foreign_executor_on_the_path_is_named(tmp_path: Path) -> None:
    (tmp_path / "executor.py").write_text("")
    code = (
        "from dispatcher.own_packages import foreign_path as path; print(path('executor'), path('workers'))"
    )
    assert python(code, tmp_path).stdout == f"{tmp_path / 'executor.py'} None\n"


@pytest.mark.parametrize("file", ["dispatcher/__init__.py", "dispatcher.py"])
def test_a_foreign_dispatcher_in_the_working_directory_is_named_by_celerys_commands(
    file: str, tmp_path: Path
) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text("")
    command = [sys.executable, "-m", "celery", "--app", "workers.app", "report"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {tmp_path / file} is in the way: "), done.stderr
    imported = python("import workers.app", tmp_path)
    assert f"ImportError: {tmp_path / file} is in the way: " in imported.stderr
