"""The Celery side of a Recommender: application, messages and results."""
