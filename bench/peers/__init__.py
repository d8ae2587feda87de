"""What one would pick instead: each does the same work, as its own documentation shows."""
