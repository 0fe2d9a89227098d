"""The parent of Envoy: `python -m executor.keeper PID_FILE {outlives,ends} COMMAND...`

Envoy ends with its parent (it asks Linux for that), so its parent must not be the Executor. A keeper only
waits, and ends with its Envoy. With `ends`, both end with the Executor.
"""

from __future__ import annotations

import ctypes
import signal
import subprocess
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1


def main() -> int:
    """Run the command until it ends; its exit code. SIGTERM ends both, and Ctrl-C neither."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pid_file, how, *command = sys.argv[1:]
    if how == "ends" and sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL)  # noqa: S603 (the Executor's own command)
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    Path(pid_file).write_text(str(child.pid), "utf-8")
    return child.wait()


if __name__ == "__main__":
    sys.exit(main())
