"""spark_jobs: the batch side; each job is a command, `python -m spark_jobs.<job>`."""
