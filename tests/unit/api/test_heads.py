"""Heads that were read before: what is learned is what the parser read, and nothing else."""

from __future__ import annotations

import pytest

from app.api.heads import LONGEST, Head, Heads

HEAD = b"POST /webhooks/whapi HTTP/1.1\r\nhost: here\r\ncontent-length: 4\r\n\r\n"
HEADERS = [(b"host", b"here"), (b"content-length", b"4")]
BODY = b'{"":'


def learned(bound: int = 10) -> Heads:
    heads = Heads(bound)
    assert heads.learn(HEAD + BODY, HEADERS, 1, BODY)
    return heads


def test_the_same_head_says_the_same_of_another_body() -> None:
    heads = learned()
    assert heads.of(HEAD + b"null") == (Head(HEADERS, 1, 4), b"null")
    assert (len(heads), heads.hits, heads.misses) == (1, 1, 0)


@pytest.mark.parametrize(
    "request_",
    [
        HEAD,
        HEAD + b"nul",
        HEAD + b"null\n",
        HEAD + b"null" + HEAD,
        HEAD.replace(b"here", b"Here") + b"null",
        HEAD[1:] + b"null",
        b"\r\n" + HEAD + b"null",
        b"",
        b"\r\n\r\n",
        b"null",
    ],
)
def test_whatever_is_not_one_whole_request_with_that_head_is_unknown(request_: bytes) -> None:
    heads = learned()
    assert heads.of(request_) is None
    assert heads.misses == 1


@pytest.mark.parametrize(
    ("request_", "headers", "body"),
    [
        pytest.param(HEAD + BODY + b"\r\n", HEADERS, BODY, id="something behind it"),
        pytest.param(HEAD + BODY + HEAD + BODY, HEADERS, BODY, id="another behind it"),
        pytest.param(HEAD + b"null", HEADERS, BODY, id="another body"),
        pytest.param(HEAD + BODY, HEADERS[:1], BODY, id="no length"),
        pytest.param(HEAD + BODY, [*HEADERS, HEADERS[1]], BODY, id="two lengths"),
        pytest.param(HEAD + BODY, [(b"content-length", b"+4")], BODY, id="no number"),
        pytest.param(HEAD + BODY, [(b"content-length", b"5")], BODY, id="another length"),
        pytest.param(
            HEAD + BODY, [*HEADERS, (b"transfer-encoding", b"chunked")], BODY, id="in chunks"
        ),
        pytest.param(b"\r\n\r\n" + HEAD + BODY, HEADERS, BODY, id="empty lines before it"),
    ],
)
def test_of_what_is_not_one_plain_request_nothing_is_learned(
    request_: bytes, headers: list[tuple[bytes, bytes]], body: bytes
) -> None:
    heads = Heads()
    assert not heads.learn(request_, headers, 1, body)
    assert len(heads) == 0


def test_a_long_head_is_not_kept_but_was_whole() -> None:
    heads = Heads()
    long = HEAD.replace(b"here", b"h" * LONGEST)
    assert heads.learn(long + BODY, HEADERS, 1, BODY)
    assert len(heads) == 0


def test_memory_is_bounded() -> None:
    heads = Heads(2)
    for number in range(5):
        head = HEAD.replace(b"here", b"%d" % number)
        assert heads.learn(head + BODY, HEADERS, 1, BODY)
        assert len(heads) <= heads.bound
        assert heads.of(head + BODY) is not None
    assert heads.evictions == 4
