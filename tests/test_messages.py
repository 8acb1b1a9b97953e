from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from websockets.extensions import Extension
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, Side, State

from interceptor.messages import Message, Messages, Utf8
from tests.illegal import CLIENT, ILLEGAL, LIMIT
from tests.peer import BINARY, CONT, MASK, PING, TEXT, close_frame, frame

DATA = (Opcode.TEXT, Opcode.BINARY, Opcode.CONT)
SAMPLE = "aé€🌍"


class Reader:
    """The reading side of a socket: the real core, with ours on top of it."""

    def __init__(self, *, chunks: bool = False, below: Sequence[Extension] = (), limit: int = 2**20) -> None:
        self.core = Protocol(Side.SERVER, max_size=limit)
        self.utf8 = Utf8()
        self.core.extensions = [self.utf8, *below]
        self.messages = Messages(self.utf8.texts, chunks)

    def read(self, data: bytes) -> list[Message]:
        """Take bytes as they come from the wire; return what is complete with them."""
        self.core.receive_data(data)
        found = (self.messages.take(event) for event in self.frames())
        return [message for message in found if message is not None]

    def frames(self) -> Iterator[Frame]:
        for event in self.core.events_received():
            assert isinstance(event, Frame)
            if event.opcode in DATA:
                yield event

    @property
    def failed_with(self) -> int | None:
        """The close code that our side failed the connection with."""
        if self.core.parser_exc is None:
            return None
        assert self.core.close_sent is not None
        return int(self.core.close_sent.code)


def fragments(opcode: int, parts: Sequence[bytes]) -> list[bytes]:
    """A message as frames, one for each part."""
    last = len(parts) - 1
    return [frame(opcode if i == 0 else CONT, part, fin=i == last) for i, part in enumerate(parts)]


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    ends = sorted(min(place, len(data)) for place in places)
    return [data[a:b] for a, b in zip([0, *ends], [*ends, len(data)], strict=True)]


def packed(data: bytes, deflate: PerMessageDeflate, opcode: Opcode = Opcode.TEXT, fin: bool = True) -> bytes:
    """A compressed frame of a client."""
    made = deflate.encode(Frame(opcode, data, fin))
    return frame(opcode, bytes(made.data), fin=fin, rsv=4 if made.rsv1 else 0)


def deflate(bits: int = 12) -> PerMessageDeflate:
    return PerMessageDeflate(False, False, bits, bits)


# Whole messages


@pytest.mark.parametrize("text", ["", "a", SAMPLE, "\r\n\r\x00\ufeff", "x" * 70_000])
def test_a_text_in_one_frame(text: str) -> None:
    for chunks in (False, True):
        assert Reader(chunks=chunks).read(frame(TEXT, text)) == [(text, True, 1)]


@pytest.mark.parametrize("data", [b"", b"a", b"\xff\xfe\x00", b"\xc3" * 70_000])
def test_binary_data_in_one_frame(data: bytes) -> None:
    for chunks in (False, True):
        (message,) = Reader(chunks=chunks).read(frame(BINARY, data))
        assert message == (data, True, 2)
        assert type(message[0]) is bytes


def test_messages_keep_their_order_and_kind() -> None:
    reader = Reader()
    data = (
        frame(TEXT, "a")
        + frame(BINARY, b"b")
        + frame(TEXT, "é", fin=False)
        + frame(CONT, "c")
        + frame(BINARY, b"")
    )
    assert reader.read(data) == [("a", True, 1), (b"b", True, 2), ("éc", True, 1), (b"", True, 2)]
    assert reader.read(frame(TEXT, "d")) == [("d", True, 1)]
    assert reader.failed_with is None


def test_a_line_end_is_not_changed_in_fragments() -> None:
    assert Reader().read(b"".join(fragments(TEXT, [b"a\r", b"\nb\r\n", b"\r\n"]))) == [
        ("a\r\nb\r\n\r\n", True, 1)
    ]


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_fragments_become_one_message(opcode: int) -> None:
    reader = Reader()
    first, *middle, last = fragments(opcode, [b"one ", b"", b"two", b" three", b""])
    assert reader.read(first) == []
    assert reader.read(b"".join(middle)) == []
    assert reader.read(last) == [("one two three" if opcode == TEXT else b"one two three", True, opcode)]
    assert reader.read(b"".join(fragments(opcode, [b"", b"four"]))) == [
        ("four" if opcode == TEXT else b"four", True, opcode)
    ]


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_empty_fragments_become_an_empty_message(opcode: int) -> None:
    empty: str | bytes = "" if opcode == TEXT else b""
    assert Reader().read(b"".join(fragments(opcode, [b"", b"", b""]))) == [(empty, True, opcode)]
    pieces = [(empty, False, opcode), (empty, False, opcode), (empty, True, opcode)]
    assert Reader(chunks=True).read(b"".join(fragments(opcode, [b"", b"", b""]))) == pieces


@pytest.mark.parametrize("first", [TEXT, BINARY])
@pytest.mark.parametrize("second", [TEXT, BINARY])
@pytest.mark.parametrize("chunks", [False, True])
def test_one_fragmented_message_after_another(first: int, second: int, chunks: bool) -> None:
    reader = Reader(chunks=chunks)
    for opcode in (first, second, first):
        got = reader.read(b"".join(fragments(opcode, [b"a", b"b"])))
        kind = str if opcode == TEXT else bytes
        assert all(type(data) is kind for data, _, _ in got)
        assert [(fin, datatype) for _, fin, datatype in got] == ([(False, opcode)] if chunks else []) + [
            (True, opcode)
        ]
    assert not reader.utf8.texts


def test_control_frames_between_fragments() -> None:
    reader = Reader()
    one, two, three = fragments(TEXT, [b"\xe2", b"\x82", b"\xac"])
    assert reader.read(one + frame(PING, b"\xff") + two + frame(PING) + three) == [("€", True, 1)]
    assert len(b"".join(reader.core.data_to_send())) == 2 + 1 + 2


# Chunks


def test_chunks_come_frame_by_frame() -> None:
    reader = Reader(chunks=True)
    frames = fragments(BINARY, [b"a", b"", b"bc"])
    assert [reader.read(one) for one in frames] == [[(b"a", False, 2)], [(b"", False, 2)], [(b"bc", True, 2)]]


def test_a_text_is_split_only_between_characters() -> None:
    reader = Reader(chunks=True)
    data = SAMPLE.encode()
    frames = fragments(TEXT, [data[i : i + 1] for i in range(len(data))])
    got = [message for one in frames for message in reader.read(one)]
    assert [data for data, _, _ in got] == ["a", "", "é", "", "", "€", "", "", "", "🌍"]
    assert [fin for _, fin, _ in got] == [False] * 9 + [True]


@given(st.text(), st.lists(st.integers(0, 40), max_size=6))
@example(SAMPLE, [2, 4, 5, 7, 8, 9])
def test_wherever_a_text_is_cut(text: str, places: list[int]) -> None:
    frames = fragments(TEXT, cut(text.encode(), places))
    whole, pieces = Reader(), Reader(chunks=True)
    assert whole.read(b"".join(frames)) == [(text, True, 1)]
    got = [message for one in frames for message in pieces.read(one)]
    assert "".join(str(data) for data, _, _ in got) == text
    assert [(fin, datatype) for _, fin, datatype in got] == [(False, 1)] * (len(frames) - 1) + [(True, 1)]


# Bad UTF-8

BAD = [
    b"\x80",
    b"\xbf",
    b"\xff",
    b"\xfe",
    b"\xc0\xaf",
    b"\xc1\xbf",
    b"\xe0\x80\xaf",
    b"\xf0\x80\x80\xaf",
    b"\xed\xa0\x80",
    b"\xed\xbf\xbf",
    b"\xf4\x90\x80\x80",
    b"\xf8\x88\x80\x80\x80",
    b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80\x65",
    b"\xc3(",
    b"\xe2\x82(",
    b"\xf0\x9f\x8c(",
]
UNFINISHED = [b"\xc3", b"\xe2", b"\xe2\x82", b"\xf0", b"\xf0\x9f", b"\xf0\x9f\x8c"]


def is_lost(data: bytes) -> bool:
    """Whether no more bytes can make this text right."""
    try:
        data.decode()
    except UnicodeDecodeError as exc:
        return exc.reason != "unexpected end of data"
    return False


@pytest.mark.parametrize("bad", BAD + UNFINISHED)
@pytest.mark.parametrize("before", ["", "a", SAMPLE])
@pytest.mark.parametrize("after", ["", "z", "é"])
def test_bad_text_in_one_frame(bad: bytes, before: str, after: str) -> None:
    reader = Reader()
    assert reader.read(frame(TEXT, "good") + frame(TEXT, before.encode() + bad + after.encode())) == [
        ("good", True, 1)
    ]
    assert reader.failed_with == 1007
    assert reader.core.state is State.CLOSING
    assert reader.read(frame(TEXT, "late")) == []


@pytest.mark.parametrize("bad", BAD + UNFINISHED)
@pytest.mark.parametrize("chunks", [False, True])
def test_bad_text_fails_at_the_frame_that_spoils_it(bad: bytes, chunks: bool) -> None:
    text = b"ok\xc3\xa9" + bad + b"z"
    for place in range(len(text) + 1):
        reader = Reader(chunks=chunks)
        first, second = text[:place], text[place:]
        head, tail = fragments(TEXT, [first, second])
        reader.read(head)
        assert reader.failed_with == (1007 if is_lost(first) else None), place
        reader.read(tail)
        assert reader.failed_with == 1007, place


@pytest.mark.parametrize("bad", UNFINISHED)
def test_a_text_that_ends_inside_a_character(bad: bytes) -> None:
    for last in (b"", b"a"):
        reader = Reader()
        assert reader.read(frame(TEXT, b"ok" + bad, fin=False)) == []
        assert reader.failed_with is None
        assert reader.read(frame(CONT, last)) == []
        assert reader.failed_with == 1007


def test_a_character_does_not_go_on_in_the_next_message() -> None:
    reader = Reader()
    reader.read(frame(TEXT, b"\xc3", fin=False))
    assert reader.read(frame(CONT, b"\xa9") + frame(TEXT, b"a", fin=False) + frame(CONT, b"b")) == [
        ("é", True, 1),
        ("ab", True, 1),
    ]
    reader.read(frame(TEXT, b"\xa9", fin=False))
    assert reader.failed_with == 1007


@given(st.binary(max_size=12), st.lists(st.integers(0, 12), max_size=4))
def test_any_bytes_as_text(data: bytes, places: list[int]) -> None:
    parts = cut(data, places)
    reader = Reader()
    so_far = b""
    for part, one in zip(parts, fragments(TEXT, parts), strict=True):
        so_far += part
        got = reader.read(one)
        if reader.failed_with is not None:
            assert (reader.failed_with, got) == (1007, [])
            assert is_lost(so_far) or so_far == data
            return
        assert not is_lost(so_far)
    assert got == [(data.decode(), True, 1)]


def test_binary_data_need_not_be_text() -> None:
    reader = Reader()
    assert reader.read(b"".join(fragments(BINARY, BAD))) == [(b"".join(BAD), True, 2)]
    assert reader.failed_with is None


# Bad frames, and the good ones before them


@pytest.mark.parametrize("name", ILLEGAL)
@pytest.mark.parametrize("chunks", [False, True])
def test_what_came_before_a_bad_frame_is_delivered(name: str, chunks: bool) -> None:
    write, code = ILLEGAL[name]
    reader = Reader(chunks=chunks, limit=LIMIT)
    good = frame(TEXT, "é") + frame(BINARY, b"\xff") + b"".join(fragments(TEXT, [b"\xc3", b"\xa9"]))
    wanted = [("é", True, 1), (b"\xff", True, 2), *([("", False, 1)] if chunks else []), ("é", True, 1)]
    got = reader.read(good + write(CLIENT) + frame(TEXT, "after"))
    assert got[: len(wanted)] == wanted
    assert all(not fin for _, fin, _ in got[len(wanted) :])  # Whole is nothing that came after.
    assert reader.failed_with == code


def test_what_came_before_a_close_in_the_same_read_is_delivered() -> None:
    reader = Reader()
    assert reader.read(frame(TEXT, "last") + close_frame(1001) + frame(TEXT, "after")) == [("last", True, 1)]
    assert reader.failed_with is None
    assert reader.core.close_rcvd is not None
    assert reader.core.close_rcvd.code == 1001


@given(st.lists(st.sampled_from([TEXT, BINARY, CONT]), max_size=6), st.data())
def test_any_order_of_data_frames(opcodes: list[int], data: st.DataObject) -> None:
    fins = data.draw(st.lists(st.booleans(), min_size=len(opcodes), max_size=len(opcodes)))
    reader, slow = Reader(), Slow()
    for opcode, fin in zip(opcodes, fins, strict=True):
        got, wanted = reader.read(frame(opcode, b"\xc3\xa9", fin=fin)), slow.read(opcode, b"\xc3\xa9", fin)
        assert got == wanted
        assert reader.failed_with == slow.failed_with
        if slow.failed_with is not None:
            return


class Slow:
    """Section 5.4 of RFC 6455, word for word."""

    def __init__(self) -> None:
        self.opcode: int | None = None
        self.data = b""
        self.failed_with: int | None = None

    def read(self, opcode: int, data: bytes, fin: bool) -> list[Message]:
        if (opcode == CONT) is (self.opcode is None):
            self.failed_with = 1002
            return []
        if opcode != CONT:
            self.opcode, self.data = opcode, b""
        self.data += data
        if not fin:
            return []
        kind, self.opcode = self.opcode, None
        return [(self.data.decode(), True, 1)] if kind == TEXT else [(self.data, True, 2)]


# Compression below


def test_compressed_text_is_checked_once_it_is_unpacked() -> None:
    client, reader = deflate(), Reader(below=[deflate()])
    text = SAMPLE * 500
    for _ in range(2):
        assert reader.read(packed(text.encode(), client)) == [(text, True, 1)]
    assert reader.read(frame(TEXT, "plain é")) == [("plain é", True, 1)]
    assert reader.read(packed(b"\xff\x00", client, Opcode.BINARY)) == [(b"\xff\x00", True, 2)]
    assert reader.read(packed(b"", client)) == [("", True, 1)]
    assert reader.read(packed(b"good", client) + packed(b"ok\xff", client)) == [("good", True, 1)]
    assert reader.failed_with == 1007


@pytest.mark.parametrize("chunks", [False, True])
def test_compressed_fragments(chunks: bool) -> None:
    client, reader = deflate(), Reader(below=[deflate()], chunks=chunks)
    frames = (
        packed(b"a\xe2", client, fin=False)
        + packed(b"\x82", client, Opcode.CONT, fin=False)
        + packed(b"\xacb" * 1, client, Opcode.CONT)
    )
    pieces: list[Message] = [("a", False, 1), ("", False, 1), ("€b", True, 1)]
    assert reader.read(frames) == (pieces if chunks else [("a€b", True, 1)])
    reader.read(packed(b"a\xe2", client, fin=False))
    assert reader.failed_with is None
    reader.read(packed(b"\xff", client, Opcode.CONT, fin=False))
    assert reader.failed_with == 1007


def test_a_compressed_message_counts_by_its_unpacked_size() -> None:
    client, reader = deflate(), Reader(below=[deflate()], limit=1000)
    assert reader.read(packed(b"x" * 1000, client)) == [("x" * 1000, True, 1)]
    assert reader.read(packed(b"x" * 1001, client)) == []
    assert reader.failed_with == 1009


def test_a_compressed_control_frame_or_continuation_is_refused() -> None:
    for bad in (frame(PING, b"", rsv=4), frame(TEXT, "a", fin=False) + frame(CONT, "b", rsv=4)):
        reader = Reader(below=[deflate()])
        assert reader.read(frame(TEXT, "good") + bad) == [("good", True, 1)]
        assert reader.failed_with == 1002


def test_what_is_no_deflate_data_is_refused() -> None:
    reader = Reader(below=[deflate()])
    assert reader.read(frame(TEXT, "good") + frame(TEXT, b"\xff\xff\xff", rsv=4)) == [("good", True, 1)]
    assert reader.failed_with == 1002


# On the way out


def test_what_goes_out_is_left_as_it_is() -> None:
    reader = Reader()
    reader.core.send_text(b"\xff not our concern")
    assert reader.core.data_to_send() == [frame(TEXT, b"\xff not our concern", mask=None)]
    assert not reader.utf8.texts


def test_a_client_reads_the_same() -> None:
    client = Protocol(Side.CLIENT)
    utf8 = Utf8()
    client.extensions = [utf8]
    client.receive_data(frame(TEXT, b"\xc3", fin=False, mask=None) + frame(CONT, b"\xa9", mask=None))
    messages = Messages(utf8.texts, False)
    got = [messages.take(event) for event in client.events_received() if isinstance(event, Frame)]
    assert got == [None, ("é", True, 1)]


def test_a_mask_of_any_kind() -> None:
    for mask in (MASK, b"\x00" * 4, b"\xff" * 4):
        assert Reader().read(frame(TEXT, SAMPLE, mask=mask)) == [(SAMPLE, True, 1)]
