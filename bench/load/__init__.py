"""A load generator that costs less than any server it is pointed at; a process of its own."""

from bench.load.client import CONNECTIONS, Load, Shots, fire

__all__ = ["CONNECTIONS", "Load", "Shots", "fire"]
