"""Celery's command line for this application, in a process that imports nothing from the working directory.

`python -P -m dispatcher.celery_command worker` does what `celery --app dispatcher.worker_app worker` does.
But it imports everything before Celery looks into the working directory, so that no module there is imported.
"""

from __future__ import annotations

import sys

from dispatcher.own_packages import import_own

__all__ = ["celery_command"]

APPLICATION = "dispatcher.worker_app"


def celery_command(*arguments: str) -> list[str]:
    """The command that runs Celery's command line with these arguments."""
    return [sys.executable, "-P", "-m", "dispatcher.celery_command", *arguments]


if __name__ == "__main__":
    from celery.__main__ import main

    import_own("workers")
    sys.argv[1:1] = ["--app", APPLICATION]
    main()
