"""What hooks ask for is kept until just that has been done."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.conversation.asked import Asked
from eventstore.errors import LogUnavailable
from eventstore.types import StreamName

ANA, BEN = StreamName("user/ana"), StreamName("user/ben")


def test_a_request_that_came_meanwhile_is_not_forgotten_with_the_one_before(tmp_path: Path) -> None:
    asked = Asked(tmp_path / "hooks.db")
    asked.put(ANA, 1)
    asked.put(BEN, 2)
    asked.put(ANA, 4)
    asked.put(ANA, 3)  # another thread was slower
    asked.done(ANA, 3)
    asked.done(BEN, 2)
    asked.close()
    again = Asked.owned(tmp_path / "hooks.db")
    assert again.all() == {ANA: 4}
    again.done(ANA, 4)
    assert again.all() == {}
    again.close()


def test_a_damaged_file_is_put_aside_and_a_file_that_cannot_be_used_says_so(tmp_path: Path) -> None:
    (tmp_path / "hooks.db").write_bytes(b"no database" * 1000)
    asked = Asked.owned(tmp_path / "hooks.db")
    assert asked.all() == {}
    assert list(tmp_path.glob("hooks.db.damaged-*"))
    asked.close()
    for use in (asked.all, lambda: asked.put(ANA, 1), lambda: asked.done(ANA, 1)):
        with pytest.raises(LogUnavailable, match=r"hooks\.db"):
            use()
