"""catalog: declarations of what exists; no code that acts."""
