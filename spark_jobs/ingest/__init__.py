"""ingest: the user's own data in: files of any usual format become one sealed dataset, or nothing at all. No Spark here."""
