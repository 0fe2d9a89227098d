"""The whole system on one machine, for trying and for developing."""
