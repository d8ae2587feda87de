"""The command line's own small parts."""
