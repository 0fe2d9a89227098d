"""The comparison of this project with queues and durable engines."""
