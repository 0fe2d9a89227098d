"""Parts of a worker, which are measured by themselves."""
