"""stack: the processes of one checkout: an embedded Redis, Airflow and the ranking service; started, watched, stopped."""
