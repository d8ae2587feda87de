"""Golden bytes: what earlier releases wrote, and every later one must read the same."""
