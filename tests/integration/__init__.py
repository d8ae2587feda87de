"""Promises of the whole path, over real HTTP and real files."""
