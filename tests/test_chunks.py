"""Chunked bodies: what is one, wherever it is cut, and what only looks like one."""

from __future__ import annotations

import pytest

from interceptor.ways.chunks import ChunkedBody

RIGHT = [
    b"0\r\n\r\n",
    b"5\r\nhello\r\n0\r\n\r\n",
    b"5;x=y\r\nhello\r\n00\r\nX: y\r\nZ:\r\n\r\n",
    b"A\r\n0\r\n\r\n12345\r\n0\r\n\r\n",
    b"1 ; x\r\na\r\n0\r\n\r\n",
]
WRONG = [
    b"0\r\n\n",
    b"0\n\r\n",
    b"0\r\nX: y\n\n",
    b"0\r\nX: y\n\r\n",
    b"0\r\nX: y\r\n z\r\n\r\n",
    b"0\r\nX : y\r\n\r\n",
    b"1;a\rb\r\nx\r\n0\r\n\r\n",
    b"1;a\0b\r\nx\r\n0\r\n\r\n",
    b"5 \r\nhello\r\n0\r\n\r\n",
    b"0x5\r\nhello\r\n0\r\n\r\n",
    b"+5\r\nhello\r\n0\r\n\r\n",
    b"\r\n0\r\n\r\n",
    b"3\r\nhello\r\n0\r\n\r\n",
    b"11111111111111111\r\n",
    b"0\r\n" + b"X: y\r\n" * 101 + b"\r\n",
    b"1;" + b"a" * 5000 + b"\r\n",
    b"0\r\n\r\nmore",
]


@pytest.mark.parametrize("body", RIGHT)
def test_a_right_body_wherever_it_is_cut(body: bytes) -> None:
    for cut in range(len(body) + 1):
        chunks = ChunkedBody()
        chunks.feed(body[:cut])
        assert chunks.over is (cut == len(body))
        chunks.feed(body[cut:])
        assert chunks.over


@pytest.mark.parametrize("body", WRONG)
def test_a_wrong_one_wherever_it_is_cut(body: bytes) -> None:
    for cut in {0, 1, 2, 3, 4, 5, len(body) // 2, len(body) - 1}:
        chunks = ChunkedBody()
        with pytest.raises(ValueError, match=r"."):  # noqa: PT012  # either piece may be the one
            chunks.feed(body[:cut])
            chunks.feed(body[cut:])
