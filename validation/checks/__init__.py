"""checks: one file a check, each with what it measures, what it wants and how it words a violation."""
