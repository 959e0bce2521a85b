"""local: everything on one machine: tools, the stack of processes, sample data, the demo; what `make` runs."""
