"""features: what is known of an entity, declared once: the nearline ones a file an entity, the ranker's inputs in `ranking`."""
