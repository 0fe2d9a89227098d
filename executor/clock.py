"""What time it is. A person may set the clock of the machine, but not the steady one."""

from __future__ import annotations

import time
from datetime import UTC, datetime

__all__ = ["Clock"]


class Clock:
    """The clocks of this machine."""

    def now(self) -> datetime:
        """The date and time in UTC, for people and for other machines."""
        return datetime.now(UTC)

    def steady_s(self) -> float:
        """Seconds since some moment. All that must end in time uses these."""
        return time.monotonic()
