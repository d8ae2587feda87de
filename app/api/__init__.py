"""The door: webhooks, hooks, the read API and operations."""
