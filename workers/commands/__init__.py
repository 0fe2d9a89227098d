"""Commands of `dispatcher` that need what workers need."""

from __future__ import annotations

from dispatcher.cli.listing import Listed

__all__ = ["BREAKER", "DOCTOR", "WORKER"]

BREAKER = Listed(
    "workers.commands.breaker:breaker", "Show the circuit breaker of each Executor, or move one by hand."
)
DOCTOR = Listed(
    "workers.commands.doctor:doctor",
    "Look at everything that a fleet needs: a line for each, ok, warning or error, with what to do.",
)
WORKER = Listed(
    "workers.commands.worker:worker",
    "Carry plans out, until Ctrl-C or SIGTERM: steps under way are finished first.",
)
