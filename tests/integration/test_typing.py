"""Type checkers accept the ten real uses of the public API, each as its users start it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
FOLDER = ROOT / "tests" / "typed_uses"
USES = sorted(FOLDER.glob("*.py"))


def test_mypy_finds_the_types_of_each_use_without_any_plugin() -> None:
    cache = ["--cache-dir", str(ROOT / ".mypy_cache" / "typed_uses")]
    command = [str(BIN / "mypy"), "--strict", "--no-error-summary", "--config-file=", *cache]
    done = subprocess.run(
        [*command, *map(str, USES)], capture_output=True, text=True, check=False, cwd=FOLDER
    )
    assert (done.stdout, done.stderr) == ("", "")


def test_pyright_finds_the_types_of_each_use() -> None:
    command = [str(BIN / "basedpyright"), "--outputjson", "--pythonpath", sys.executable]
    done = subprocess.run(
        [*command, "--project", str(FOLDER)], capture_output=True, text=True, check=False, cwd=FOLDER
    )
    found = json.loads(done.stdout)
    assert found["summary"]["filesAnalyzed"] == len(USES)
    assert [(each["file"], each["message"]) for each in found["generalDiagnostics"]] == []
