"""The database itself keeps the log: whoever opens it, nothing in it can be changed.

Each statement is run over a bare connection, which knows no setting of ours: SQLite's
`INSERT OR REPLACE` then deletes rows without firing a single DELETE trigger. On PostgreSQL it is a
superuser's.
"""

from __future__ import annotations

import pytest

from eventstore.store import LogStore
from tests.conformance.appends import ANA, BEN, append, check, event, grow, whole, write
from tests.conformance.forgeries import FORGERIES, POSTGRES, SQLITE
from tests.conformance.stores import Refused, StoreFactory


@pytest.fixture
def three(log: LogStore) -> LogStore:
    """A log of three events: two of Ana (stream 1), one, with a key, of Ben (stream 2)."""
    grow(log, [2], ANA)
    write(log, append(BEN, 0, event(keyed="k")))
    return log


def test_every_store_is_asked_for_the_same_changes() -> None:
    assert SQLITE.keys() == POSTGRES.keys()


@pytest.mark.parametrize("change", SQLITE)
def test_the_database_refuses(store_factory: StoreFactory, three: LogStore, change: str) -> None:
    statement = FORGERIES[store_factory.name][change]
    before, events = store_factory.everything(), whole(three)
    with pytest.raises(Refused):
        store_factory.tamper(statement)
    assert store_factory.everything() == before
    assert whole(three) == events
    grow(three, [1], ANA)
    grow(three, [1], BEN)
    check(whole(three))
