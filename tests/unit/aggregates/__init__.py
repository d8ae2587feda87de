"""Unit tests of decisions: given past events, when a command, then these events."""
