"""Answers that open: the host's 101, and those that a program writes."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory, PerMessageDeflate
from websockets.frames import Frame, Opcode
from websockets.headers import parse_extension
from websockets.protocol import State
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from interceptor.exceptions import InvalidAnswer
from interceptor.handshake import (
    Accepted,
    Answer,
    HeadReader,
    Offer,
    accept,
    choose_extensions,
    read_answer,
    read_offer,
    read_request,
    read_verbatim,
)
from tests.peer import ACCEPT, KEY

DEFLATE = "permessage-deflate"
CHROMIUM = "permessage-deflate; client_max_window_bits"
FIREFOX = "permessage-deflate"


def offer(extensions: str = "", subprotocols: tuple[str, ...] = ()) -> Offer:
    return Offer(KEY, subprotocols, tuple(parse_extension(extensions)) if extensions else ())


# The host's own answers


@pytest.mark.parametrize(
    ("asked", "parameters"),
    [
        (CHROMIUM, "server_max_window_bits=11; client_max_window_bits=11"),
        (FIREFOX, "server_max_window_bits=11"),
        ("x-webkit-deflate-frame", None),
        ("", None),
        ("x, permessage-deflate", "server_max_window_bits=11"),
        (f"{FIREFOX}; server_max_window_bits=8", None),
        (f"{FIREFOX}; server_max_window_bits=8, {FIREFOX}", "server_max_window_bits=11"),
        (f"{FIREFOX}; server_max_window_bits=9", "server_max_window_bits=9"),
        (f"{FIREFOX}; server_max_window_bits=15", "server_max_window_bits=11"),
        (f"{FIREFOX}; server_max_window_bits=10, {FIREFOX}", "server_max_window_bits=10"),
        (f"{FIREFOX}; client_max_window_bits=8", "server_max_window_bits=11; client_max_window_bits=8"),
        (f"{FIREFOX}; client_max_window_bits=15", "server_max_window_bits=11; client_max_window_bits=11"),
        (f"{FIREFOX}; server_no_context_takeover", "server_no_context_takeover; server_max_window_bits=11"),
        (f"{FIREFOX}; client_no_context_takeover", "client_no_context_takeover; server_max_window_bits=11"),
        (f"{FIREFOX}; unknown", None),
        (f"{FIREFOX}; unknown, {CHROMIUM}", "server_max_window_bits=11; client_max_window_bits=11"),
        (f"{FIREFOX}; server_no_context_takeover=1", None),
        (f"{FIREFOX}; server_max_window_bits", None),
        (f"{FIREFOX}; server_max_window_bits=16", None),
        (f"{FIREFOX}; client_max_window_bits=7", None),
        (f"{FIREFOX}; client_max_window_bits; client_max_window_bits", None),
    ],
)
def test_the_extensions_that_the_host_chooses(asked: str, parameters: str | None) -> None:
    agreed = choose_extensions(offer(asked), True)
    answered = "" if parameters is None else f"{DEFLATE}; {parameters}"
    assert (agreed.header, agreed.subprotocol, len(agreed.extensions)) == (answered, None, bool(answered))
    assert choose_extensions(offer(asked), False) == Accepted()
    if answered:
        assert_they_understand_each_other(agreed)


def assert_they_understand_each_other(agreed: Accepted) -> None:
    """A client that has read the answer and the host unpack what the other packs, message after message."""
    (ours,) = agreed.extensions
    assert isinstance(ours, PerMessageDeflate)
    ((_, parameters),) = parse_extension(agreed.header)
    named = dict(parameters)
    # A client may use any smaller window, and zlib has none of 8 bits to pack with.
    client = PerMessageDeflate(
        "server_no_context_takeover" in named,
        "client_no_context_takeover" in named,
        int(named.get("server_max_window_bits") or 15),
        max(9, int(named.get("client_max_window_bits") or 15)),
    )
    for text in (b"one " * 2000, b"one " * 2000, bytes(range(256)) * 300, b""):
        for packer, unpacker in ((client, ours), (ours, client)):
            packed = packer.encode(Frame(Opcode.BINARY, text))
            assert packed.rsv1
            assert bytes(unpacker.decode(packed).data) == text


def test_small_windows_save_memory() -> None:
    (ours,) = choose_extensions(offer(CHROMIUM), True).extensions
    assert isinstance(ours, PerMessageDeflate)
    assert (ours.local_max_window_bits, ours.remote_max_window_bits) == (11, 11)
    assert ours.compress_settings == {"level": 4, "memLevel": 4}


def test_the_101_of_the_rfc() -> None:
    answer = (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {ACCEPT}\r\n"
    )
    assert accept(offer(), Accepted()) == f"{answer}\r\n".encode()
    agreed = Accepted("chat", (), "permessage-deflate")
    more = "Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Extensions: permessage-deflate\r\n"
    assert accept(offer(), agreed) == f"{answer}{more}\r\n".encode()


# Answers written by the program: 101

RIGHT = (
    "HTTP/1.1 101 Switching Protocols",
    "Upgrade: websocket",
    "Connection: Upgrade",
    f"Sec-WebSocket-Accept: {ACCEPT}",
)
ASKED = ("chat", "log", "interceptor.token.SECRET")


def answer_101(*more: str, without: str = "-", end: str = "\r\n") -> str:
    kept = [line for line in RIGHT if not line.startswith(without)]
    return end.join([*kept, *more, "", ""])


def wrong(text: str, asked: Offer | None = None) -> str:
    with pytest.raises(InvalidAnswer) as caught:
        read_answer(text, asked or offer("", ASKED))
    return str(caught.value)


@pytest.mark.parametrize("end", ["\r\n", "\n"])
def test_a_right_101(end: str) -> None:
    text = answer_101("Set-Cookie: a=1", "Sec-WebSocket-Protocol: log", end=end)
    right = answer_101("Set-Cookie: a=1", "Sec-WebSocket-Protocol: log").encode()
    assert read_answer(text, offer("", ASKED)) == Answer(right, 101, Accepted("log"))


@pytest.mark.parametrize(
    ("without", "more"),
    [
        ("-", ()),
        ("HTTP", ()),
        ("Upgrade", ("UPGRADE:WebSocket",)),
        ("Connection", ("Connection: keep-alive, upgrade",)),
        ("Connection", ("Connection: keep-alive", "Connection:\tUpgrade ")),
        ("Sec", (f"sec-websocket-accept:   {ACCEPT}\t",)),
        ("-", ("Sec-WebSocket-Protocol: interceptor.token.SECRET",)),
    ],
)
def test_other_spellings_of_a_101(without: str, more: tuple[str, ...]) -> None:
    text = answer_101(*more, without=without)
    text = text if text.startswith("HTTP") else f"HTTP/1.1 101 \r\n{text}"
    answer = read_answer(text, offer("", ASKED))
    assert (answer.data, answer.status) == (text.encode(), 101)
    assert answer.accepted is not None


NO_UPGRADE = "a 101 needs Upgrade: websocket, once"
NO_CONNECTION = "a 101 needs Connection: Upgrade"
NO_ACCEPT = f"a 101 needs Sec-WebSocket-Accept: {ACCEPT}, once; event.accept() writes it"
NOT_ASKED = " was not asked for; asked for: chat, log"


@pytest.mark.parametrize(
    ("words", "without", "line"),
    [
        (NO_UPGRADE, "Upgrade", "X: a"),
        (NO_UPGRADE, "Upgrade", "Upgrade: h2c"),
        (NO_UPGRADE, "Upgrade", "Upgrade: h2c, websocket"),
        (NO_UPGRADE, "-", "Upgrade: h2c"),
        (NO_UPGRADE, "-", "Upgrade: websocket"),
        (NO_CONNECTION, "Connection", "X: a"),
        (NO_CONNECTION, "Connection", "Connection: close"),
        (NO_CONNECTION, "Connection", "Connection: Upgraded"),
        (NO_CONNECTION, "-", "Connection: Upgrade=12"),
        (NO_CONNECTION, "Connection", "Connection: Upgrade; q=1"),
        (NO_ACCEPT, "Sec", "X: a"),
        (NO_ACCEPT, "Sec", "Sec-WebSocket-Accept: x"),
        (NO_ACCEPT, "Sec", f"Sec-WebSocket-Accept: {KEY}"),
        (NO_ACCEPT, "Sec", f"Sec-WebSocket-Accept: {ACCEPT.lower()}"),
        (NO_ACCEPT, "-", f"Sec-WebSocket-Accept: {ACCEPT}"),
        (f"'other'{NOT_ASKED}", "-", "Sec-WebSocket-Protocol: other"),
        (f"'Chat'{NOT_ASKED}", "-", "Sec-WebSocket-Protocol: Chat"),
        (f"'chat, log'{NOT_ASKED}", "-", "Sec-WebSocket-Protocol: chat, log"),
        (f"''{NOT_ASKED}", "-", "Sec-WebSocket-Protocol:"),
        (f"'chat'{NOT_ASKED}", "-", "Sec-WebSocket-Protocol: chat, interceptor.token.SECRET"),
        (f"''{NOT_ASKED}", "-", "Sec-WebSocket-Protocol: interceptor.token.SECRET2"),
        ("one subprotocol at most", "-", "Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Protocol: log"),
        ("one subprotocol at most", "-", "Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Protocol: chat"),
        ("a 101 has no body, so no content-length", "-", "Content-Length: 0"),
        ("a 101 has no body, so no transfer-encoding", "-", "Transfer-Encoding: chunked"),
    ],
)
def test_each_fault_of_a_101(words: str, without: str, line: str) -> None:
    message = wrong(answer_101(line, without=without))
    assert words in message
    assert "SECRET" not in message


@pytest.mark.parametrize("after", ["hello", "\n", answer_101(), "HTTP/1.1 403 No\r\n\r\n"])
def test_nothing_follows_the_head_of_a_101(after: str) -> None:
    assert "text follows the head of a 101; frames are sent with WebSocketSend" in wrong(answer_101() + after)


def test_a_101_with_a_subprotocol_where_none_was_asked_for() -> None:
    assert "asked for: none" in wrong(answer_101("Sec-WebSocket-Protocol: chat"), offer())


AGREED = [  # Offer, answer: RFC 7692 section 7.1; what follows the extension's name.
    ("", ""),
    ("", "server_no_context_takeover"),
    ("", "client_no_context_takeover"),
    ("", "server_max_window_bits=10"),
    ("", 'server_max_window_bits="10"'),
    ("", "server_max_window_bits=15"),
    ("", "server_max_window_bits=9; client_no_context_takeover; server_no_context_takeover"),
    ("server_no_context_takeover", "server_no_context_takeover"),
    ("client_no_context_takeover", "client_no_context_takeover"),
    ("client_no_context_takeover", ""),
    ("server_max_window_bits=10", "server_max_window_bits=10"),
    ("server_max_window_bits=10", "server_max_window_bits=9"),
    ("client_max_window_bits", ""),
    ("client_max_window_bits", "client_max_window_bits=15"),
    ("client_max_window_bits", "client_max_window_bits=8"),
    ("client_max_window_bits=10", "client_max_window_bits=10"),
    ("client_max_window_bits=10", "client_max_window_bits=9"),
    ("client_max_window_bits=10", ""),
    ("server_max_window_bits=8, permessage-deflate", "server_max_window_bits=9"),
    ("server_max_window_bits=10, permessage-deflate", ""),
    ("unknown, permessage-deflate", ""),
]
DISAGREED = [
    ("", "client_max_window_bits=10"),
    ("", "unknown"),
    ("", "server_max_window_bits"),
    ("", "server_max_window_bits=8"),  # Allowed, but zlib cannot.
    ("", "server_max_window_bits=7"),
    ("", "server_max_window_bits=16"),
    ("", "server_max_window_bits=010"),
    ("", "server_max_window_bits=1_0"),
    ("", "server_max_window_bits=+10"),
    ("", "server_max_window_bits=ten"),
    ("", f"server_max_window_bits={'1' * 5000}"),
    ("", "server_max_window_bits=10; server_max_window_bits=10"),
    ("", "server_no_context_takeover=1"),
    ("", "client_no_context_takeover=true"),
    ("", "server_no_context_takeover; server_no_context_takeover"),
    ("server_no_context_takeover", ""),
    ("server_no_context_takeover", "client_no_context_takeover"),
    ("server_max_window_bits=10", ""),
    ("server_max_window_bits=10", "server_max_window_bits=11"),
    ("client_max_window_bits", "client_max_window_bits"),
    ("client_max_window_bits", "client_max_window_bits=16"),
    ("client_max_window_bits", "client_max_window_bits=7"),
    ("client_max_window_bits=10", "client_max_window_bits=11"),
    # Offers that a server must decline, whatever it would answer
    ("unknown", ""),
    ("client_unknown", ""),
    ("client_max_window_bits=99", ""),
    ("client_no_context_takeover=1", ""),
    ("client_max_window_bits; client_max_window_bits", ""),
]


def deflate(parameters: str) -> str:
    return f"{DEFLATE}; {parameters}" if parameters else DEFLATE


@pytest.mark.parametrize(("asked", "answered"), AGREED)
def test_a_compression_that_was_offered(asked: str, answered: str) -> None:
    asked = f"x-other, {deflate(asked)}"
    text = answer_101(f"Sec-WebSocket-Extensions: {deflate(answered)}")
    answer = read_answer(text, offer(asked))
    assert (answer.data, answer.status) == (text.encode(), 101)
    assert answer.accepted is not None
    assert answer.accepted.header == deflate(answered)
    assert_they_understand_each_other(answer.accepted)


@pytest.mark.parametrize(("asked", "answered"), DISAGREED)
def test_a_compression_that_was_not_offered_so(asked: str, answered: str) -> None:
    asked = deflate(asked)
    message = wrong(answer_101(f"Sec-WebSocket-Extensions: {deflate(answered)}"), offer(asked))
    assert "answers none of the client's offers; " in message
    right = choose_extensions(offer(asked), True).header
    assert message.endswith(f"right would be: {right}" if right else f"the client did not offer {DEFLATE}")


@pytest.mark.parametrize(
    ("asked", "answered", "words"),
    [
        ("", DEFLATE, "the client did not offer permessage-deflate"),
        ("x-other", DEFLATE, "the client did not offer permessage-deflate"),
        ("x-other, permessage-deflate", "x-other", "this host can do permessage-deflate only, once"),
        (DEFLATE, f"{DEFLATE}, {DEFLATE}", "this host can do permessage-deflate only, once"),
        (DEFLATE, f"{DEFLATE}\r\nSec-WebSocket-Extensions: {DEFLATE}", "permessage-deflate only, once"),
        (DEFLATE, "Permessage-Deflate", "this host can do permessage-deflate only, once"),
        (DEFLATE, "", "Sec-WebSocket-Extensions field is malformed"),
        (DEFLATE, "permessage-deflate;;", "Sec-WebSocket-Extensions field is malformed"),
        (DEFLATE, "permessage deflate", "Sec-WebSocket-Extensions field is malformed"),
    ],
)
def test_extensions_that_cannot_be(asked: str, answered: str, words: str) -> None:
    assert words in wrong(answer_101(f"Sec-WebSocket-Extensions: {answered}"), offer(asked))


@pytest.mark.parametrize("subprotocol", ["", "chat", "log"])
@pytest.mark.parametrize("compression", [True, False])
def test_a_client_takes_a_right_answer(subprotocol: str, compression: bool) -> None:
    client = ClientProtocol(
        parse_uri("ws://myapp/chat"),
        subprotocols=[Subprotocol("chat"), Subprotocol("log")],
        extensions=[ClientPerMessageDeflateFactory(client_max_window_bits=True)],
    )
    client.send_request(client.connect())
    found = HeadReader(4096).feed(b"".join(client.data_to_send()))
    assert found is not None
    asked = read_offer(read_request(found[0], 100))
    chosen = choose_extensions(asked, compression)
    ours = accept(asked, Accepted(subprotocol or None, (), chosen.header))
    answer = read_answer(ours.decode(), asked)
    assert answer.data == ours
    client.receive_data(answer.data)
    assert client.state is State.OPEN
    assert (client.subprotocol or "") == subprotocol
    assert len(client.extensions) == compression


# Bytes that are checked by nobody


def test_verbatim_bytes_that_are_a_right_101_open_the_socket() -> None:
    asked = offer(DEFLATE, ASKED)
    data = answer_101("Sec-WebSocket-Protocol: log", f"Sec-WebSocket-Extensions: {DEFLATE}").encode()
    for after in (b"", b"\x81\x02hi", b"\xff\n\n"):
        answer = read_verbatim(data + after, asked)
        assert (answer.data, answer.status) == (data + after, 101)
        assert answer.accepted is not None
        assert (answer.accepted.subprotocol, answer.accepted.header) == ("log", DEFLATE)
        assert len(answer.accepted.extensions) == 1


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"HTTP",
        answer_101()[:-1].encode(),
        answer_101("Sec-WebSocket-Protocol: other").encode(),
        answer_101(without="Sec").encode(),
        answer_101("X-Way: é").encode(),
        b"HTTP/1.1 403 No\r\n\r\n",
        b"HTTP/1.1 403 No\r\nContent-Length: 9\r\n\r\nabc",
        b"HTTP/1.1 100 Continue\r\n\r\n" + answer_101().encode(),
        b"\xff\x00\r\n\r\n",
        answer_101(end="\n").encode(),
        answer_101().replace("\r\n", "\n", 1).encode(),
    ],
)
def test_other_verbatim_bytes_only_go_out(data: bytes) -> None:
    assert read_verbatim(data, offer("", ASKED)) == Answer(data, 0, None)


@given(st.binary())
def test_any_bytes_go_out_as_they_are(data: bytes) -> None:
    assert read_verbatim(data, offer()) == Answer(data, 0, None)


def test_values_are_frozen() -> None:
    for value in (Accepted(), Answer(b"", 200)):
        for field in dataclasses.fields(value):
            with pytest.raises(dataclasses.FrozenInstanceError):
                setattr(value, field.name, None)
        assert value == dataclasses.replace(value)
        assert not hasattr(value, "__dict__")
