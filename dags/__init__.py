"""dags: thin wiring for Airflow; one file a DAG; jobs are named by module string, never imported."""
