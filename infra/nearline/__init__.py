"""nearline: from the event log to what is known of an entity a moment later: the worker, the fenced state, and who reads it."""
