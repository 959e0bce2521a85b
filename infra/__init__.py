"""infra: the ground floor that every runtime (Spark, Airflow, BentoML, the command line) may import."""
