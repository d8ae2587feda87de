"""Three nodes on one PostgreSQL, under traffic: killed, paused, cut off, without a database."""
