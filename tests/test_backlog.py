"""What waits for a transport: it comes out as it went in, in pieces, and large payloads are not copied."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from interceptor.backlog import PIECE, Backlog

sizes = st.lists(
    st.one_of(st.integers(0, 20), st.integers(PIECE - 2, PIECE + 2), st.just(3 * PIECE)), max_size=8
)


@given(writes=sizes, more=sizes)
def test_it_comes_out_as_it_went_in(writes: list[int], more: list[int]) -> None:
    backlog, put, out = Backlog(), b"", b""
    for batch in (writes, more):
        made = [bytes([index + 1]) * size for index, size in enumerate(batch)]
        put += b"".join(made)
        backlog.add(made, sum(batch))
        assert backlog.size == len(put) - len(out)
        out += bytes(backlog.take())
    while backlog.size:
        piece = backlog.take()
        assert len(piece) == PIECE or not backlog.size
        out += bytes(piece)
    assert out == put


def test_a_large_payload_is_not_copied() -> None:
    payload = bytes(2 * PIECE + 1)
    backlog = Backlog()
    backlog.add([payload], len(payload))
    pieces = [backlog.take() for _ in range(3)]
    assert [len(piece) for piece in pieces] == [PIECE, PIECE, 1]
    assert all(isinstance(piece, memoryview) and piece.obj is payload for piece in pieces)
