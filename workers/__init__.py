"""The worker fleet: takes plans from the ledger, a step at a time, to the Executor."""
