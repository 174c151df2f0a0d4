"""Ways to start Bookmill: the command line, deployments on a Prefect server and what they need there. No logic of the pipeline."""
