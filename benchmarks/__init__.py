"""What plans cost. The folder `campaigns` has what they survive.

- queues, breaker: comparisons with what a user would choose instead
- budget, transport: comparisons with the least that a part can cost
- guard: counts that do not depend on the machine, within bounds
- loads: what many plans, retries or faults at once cost, within bounds
- stage, engine: what all of these run on, and parts of a worker
"""
