"""The parent of an Envoy that outlives the Executor: `python -m executor.keeper PID_FILE COMMAND...`

Envoy ends with its parent (it asks Linux for that), so its parent must not be the Executor. A keeper does nothing
but wait, and ends with its Envoy.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path


def main() -> int:
    """Run the command until it ends; its exit code. SIGTERM ends both, and Ctrl-C neither."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pid_file, *command = sys.argv[1:]
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL)  # noqa: S603 (the Executor's own command)
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    Path(pid_file).write_text(str(child.pid), "utf-8")
    return child.wait()


if __name__ == "__main__":
    sys.exit(main())
