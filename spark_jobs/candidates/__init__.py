"""candidates: for each user the items worth ranking; one source a file. Workers import this, so it imports nothing."""
