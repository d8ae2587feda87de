"""Tests of the log by itself."""
