"""What people and programs can watch: metrics, traces, latencies."""
