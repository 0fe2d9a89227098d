"""Celery's command line for this application, in a process that imports nothing from the working directory.

`python -P -m dispatcher.celery_command worker` does what `celery --app dispatcher.worker_app worker` does.
But it imports everything before Celery looks into the working directory, so that no module there is imported.
A worker loads no other command of Celery's, and none of a plugin such as Flower: a quarter of the modules.
"""

from __future__ import annotations

import sys
from importlib import import_module

from dispatcher.errors import InvalidSettingsError
from dispatcher.own_packages import import_own

__all__ = ["celery_command"]

APPLICATION = "dispatcher.worker_app"
WORKER = "worker"


def celery_command(*arguments: str) -> list[str]:
    """The command that runs Celery's command line with these arguments."""
    return [sys.executable, "-P", "-m", "dispatcher.celery_command", *arguments]


if __name__ == "__main__":
    import_own("workers")
    if sys.argv[1] == WORKER:
        from celery.bin.base import CLIContext
        from celery.bin.worker import worker

        try:
            app = import_module(APPLICATION).app
        except InvalidSettingsError as exc:
            for line in exc.lines:
                print(f"error: {line}", file=sys.stderr)  # noqa: T201 (for the person who starts the worker)
            sys.exit(exc.exit_code)
        worker.main(sys.argv[2:], prog_name=WORKER, obj=CLIContext(app, no_color=None, workdir=None))
    else:
        from celery.__main__ import main

        sys.argv[1:1] = ["--app", APPLICATION]
        main()
