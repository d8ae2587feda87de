"""`threads.json` and `threads.json.backup` (C5): the thread map for those who still read files."""

from app.thread_files.content import MODELS
from app.thread_files.place import HeldElsewhere, NotOurs, Place, remove
from app.thread_files.writing import Written, add_arguments, place_of, write

__all__ = [
    "MODELS",
    "HeldElsewhere",
    "NotOurs",
    "Place",
    "Written",
    "add_arguments",
    "place_of",
    "remove",
    "write",
]
