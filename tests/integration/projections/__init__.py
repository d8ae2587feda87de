"""Read models, with real processes that are killed."""
