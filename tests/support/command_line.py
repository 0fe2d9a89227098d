"""`dispatcher` as people run it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

DISPATCHER = str(Path(sys.executable).with_name("dispatcher"))


def dispatcher(*arguments: str, text: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [DISPATCHER, *arguments],
        input=text,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env={**os.environ, "COLUMNS": "80", **environment},
    )
