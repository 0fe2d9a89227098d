"""What many plans, retries, faults or awaiting tasks at once cost, each within bounds."""
