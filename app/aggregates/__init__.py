"""app/aggregates."""
