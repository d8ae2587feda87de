"""The command line, `hilo`: `main` is the console script; commands live in the files beside it."""

from app.cli.program import main

__all__ = ["main"]
