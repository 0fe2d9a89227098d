"""Parts of `python -m benchmarks.misbehaviour`."""
