"""What plans survive: each campaign kills or deceives, and then checks every promise."""
