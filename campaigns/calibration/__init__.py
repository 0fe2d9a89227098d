"""Observations, compared with what really happened."""
