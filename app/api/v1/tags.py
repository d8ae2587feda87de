"""ETags: which representation of which resource an answer is, and whether the caller has it.

A tag holds the place in the log (epoch, position, leaf hash) and a digest of what is answered: a
read model that was rebuilt, an event that was skipped, a key that was destroyed change rows without
a new event. The digest covers path, query, bot and role as well, so that no tag is good elsewhere.

Tags are weak (RFC 9110 §8.8.1): packed or not, an answer means the same, and bears one tag.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from hashlib import blake2b
from typing import Final

from eventstore.types import Cursor

_TAG: Final = re.compile(r'(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")')
_DIGEST_BYTES: Final = 12
_LEAF_BYTES: Final = 6


def tag_of(cursor: Cursor, body: bytes, *resource: str) -> str:
    """Return the tag of a body that reflects a place in the log; `resource`: whose, for whom."""
    digest = blake2b(body, digest_size=_DIGEST_BYTES)
    for part in resource:
        encoded = part.encode("utf-8", "surrogateescape")
        digest.update(b"%d:%b" % (len(encoded), encoded))
    leaf = cursor.leaf[:_LEAF_BYTES].hex()
    return f'W/"{cursor.epoch}-{cursor.position}-{leaf}-{digest.hexdigest()}"'


def has_it(if_none_match: Iterable[str], tag: str) -> bool:
    """Tell whether the values of `If-None-Match` name a tag: by weak comparison, or with `*`."""
    ours = tag.removeprefix("W/")
    return any(value.strip() == "*" or ours in _TAG.findall(value) for value in if_none_match)
