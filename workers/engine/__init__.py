"""What carries plans out inside a worker process, free of Celery: see `Engine`."""
