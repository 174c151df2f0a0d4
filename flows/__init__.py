"""What a person runs, and the Prefect plumbing under it. A flow reads as a contents page; the steps are in `tasks`."""
