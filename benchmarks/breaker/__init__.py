"""The comparison of circuit breakers."""
