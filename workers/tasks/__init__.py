"""The Celery side of a worker: the one task, bootsteps, control commands, events and log lines."""
