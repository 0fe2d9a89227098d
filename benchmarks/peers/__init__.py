"""What a user would write with another task queue, set up as its own documentation recommends.

Each is a module that the queue's own worker imports. `PEER_REDIS` and `PEER_EXECUTOR` say where Redis and the
Executor are.
"""
