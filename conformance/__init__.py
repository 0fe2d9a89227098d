"""Checks any Executor against the contract of the faults API: `dispatcher conformance URL`."""
