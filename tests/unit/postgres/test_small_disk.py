"""The small disk fills up, and has room again."""

from __future__ import annotations

import psycopg
import pytest

from tests.faults.postgres.small_disk import SmallDisk, possible


def test_a_small_disk_fills_up_and_has_room_again(postgres_home: None) -> None:
    if not possible():
        pytest.skip("no user namespaces here")
    disk = SmallDisk()
    with psycopg.connect(disk.small_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE mine (text bytea)")
        disk.fill()
        with pytest.raises(psycopg.errors.DiskFull):
            connection.execute("INSERT INTO mine VALUES (%s)", [b"x" * 500_000])
        disk.make_room()
        connection.execute("INSERT INTO mine VALUES (%s)", [b"x" * 500_000])
    disk.close()
