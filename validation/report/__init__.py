"""report: what the gate found, as JSON for machines and one offline HTML page for whoever is on call."""
