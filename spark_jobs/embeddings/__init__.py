"""embeddings: vectors of users and items, and what both have been up to. Workers import this, so it imports nothing."""
