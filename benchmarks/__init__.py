"""Campaigns and measurements. Each is a program of its own: `make help` lists them."""
