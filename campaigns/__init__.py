"""What plans survive. Each campaign disturbs or deceives, and then checks every promise.

- chaos: every part is killed, stopped and disturbed at random
- dead_man: everything that could end a fault is killed at once
- misbehaviour: the Executor does something wrong with each plan
- calibration: observations are compared with what really happened
"""
