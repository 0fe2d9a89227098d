"""The parent of Envoy: `python -m executor.keeper PID_FILE EXECUTOR COMMAND...`

Envoy ends with its parent (it asks Linux for that), so its parent must not be the Executor. A keeper only
waits, and ends with its Envoy. Unless the process id `EXECUTOR` is 0, both end with that process, too.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1


def main() -> int:
    """Run the command until it ends; its exit code. SIGTERM ends both, and Ctrl-C neither."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pid_file, executor, *command = sys.argv[1:]
    if executor != "0" and sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != int(executor):  # it has ended before it could be watched
            return 1
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL)  # noqa: S603 (the Executor's own command)
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    Path(pid_file).write_text(str(child.pid), "utf-8")
    return child.wait()


if __name__ == "__main__":
    sys.exit(main())
