"""Which rows are wanted: one predicate model over symbols, publishers, time and trading hours, for NumPy, DuckDB and Arrow alike."""
