"""The circuit breaker of an Executor, shared by the fleet or local to a process."""
