"""cascade: the kinds of stages and the runner that takes a batch of candidates through them; knows no application."""
