"""plugins: pages that headgate adds to Airflow's own; Airflow finds them by the entry points in pyproject.toml."""
