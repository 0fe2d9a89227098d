"""Parts of `python -m benchmarks.calibrate`."""
