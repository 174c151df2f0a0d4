"""What a run may use and how it behaves: hardware, profiles, settings. Knows nothing of tasks or flows; the only readers of the environment."""
