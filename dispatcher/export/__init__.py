"""Plans and what was observed as tables: files (CSV, JSON Lines, Parquet) and data frames."""
