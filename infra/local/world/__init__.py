"""world: invents a shop's or video site's users, items and events from known tastes, and keeps the truth beside them."""
