"""PostgreSQL, and the network before it, fail in every way: nothing acknowledged is lost."""
