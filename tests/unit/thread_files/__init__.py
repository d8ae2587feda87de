"""Tests of what `threads.json` holds and how it is replaced."""
