"""What a person looks at: heatmaps, the run report, the ledger and SQL views. Reads layers by their schema, never the code that makes them."""
