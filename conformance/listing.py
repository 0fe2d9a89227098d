"""What the list of commands shows of `dispatcher conformance`."""

from __future__ import annotations

from dispatcher.cli.listing import Listed

__all__ = ["CONFORMANCE"]

CONFORMANCE = Listed(
    "conformance.command:conformance", "Check the Executor at URL against the contract of the faults API."
)
