"""No two draws are the same, in no thread and no process."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

from eventstore.randomness import POOL_BYTES, RandomPool, random_bytes


def test_bytes_are_handed_out_once() -> None:
    pool = RandomPool()
    draws = [pool.take(28) for _ in range(3 * POOL_BYTES // 28)]
    assert len(set(draws)) == len(draws)
    assert {len(draw) for draw in draws} == {28}


def test_threads_never_draw_the_same_bytes() -> None:
    pool = RandomPool()
    with ThreadPoolExecutor(8) as threads:
        draws = list(threads.map(lambda _: pool.take(12), range(20_000)))
    assert len(set(draws)) == len(draws)


def test_a_forked_child_does_not_draw_what_its_parent_draws() -> None:
    random_bytes(1)  # the pool is full
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, random_bytes(16))
        os._exit(0)
    mine = random_bytes(16)
    os.waitpid(child, 0)
    theirs = os.read(reader, 16)
    os.close(reader)
    os.close(writer)
    assert len(theirs) == len(mine)
    assert theirs != mine
