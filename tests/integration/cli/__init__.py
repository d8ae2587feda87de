"""The real `hilo`, run as people run it, against a real log."""
