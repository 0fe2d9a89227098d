"""A reference Executor: injects faults into real HTTP traffic with Envoy."""
