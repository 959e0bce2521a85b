"""ranking: the feed's service: a user's precomputed candidates, ranked for this request."""
