"""Commands of `dispatcher` that need what workers need."""
