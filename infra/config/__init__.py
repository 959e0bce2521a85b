"""config: the one reader of the environment."""
