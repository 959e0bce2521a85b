"""snapshots: the store of versions, their serving copies in Redis, the alias and its flip."""
