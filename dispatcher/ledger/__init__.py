"""The ledger: the truth about every plan, in Redis."""
