"""Settings: what may be configured, and where it comes from."""
