"""What a user would write with another task queue, set up as its own documentation recommends.

Each is a module that the queue's own worker imports. `PEER_REDIS` and `PEER_EXECUTOR` are the URLs of Redis
and of the Executor.
"""
