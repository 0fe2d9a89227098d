"""What measures a fault's effect, if the Executor has no metrics."""
