"""Unit tests of the turn."""
