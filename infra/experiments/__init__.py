"""experiments: canaries judged: from what users were shown and did to a verdict, and the watch over what went live."""
