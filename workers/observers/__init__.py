"""Who sees what a fault does, where the Executor has no metrics."""
