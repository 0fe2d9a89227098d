"""Faults, while everything that could end them is killed at once."""
