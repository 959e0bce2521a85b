"""resilience: what keeps a request inside its promise: the deadline; later admission and circuit breaking."""
