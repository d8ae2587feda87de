"""app/conversation."""
