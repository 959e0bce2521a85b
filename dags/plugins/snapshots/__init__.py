"""snapshots: the Snapshots page: versions, flips and reports of every application, and buttons that trigger DAGs."""
