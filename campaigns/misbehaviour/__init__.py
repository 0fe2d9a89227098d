"""Plans on an Executor that does something wrong with each."""
