"""SOCKS5: the same tunnels, asked for in another way."""

from __future__ import annotations

import asyncio

import pytest

from interceptor import Host, WebSocketReceive, WebSocketUpgrade
from interceptor.ways.socks import Refused, read_request

from .peer import PATIENCE, TEXT, Peer, Recorder, frame, request
from .proxied import begin_tls, echo, page_request, server, trusting
from .wire import BOTH_LOOPS

ROWS = [("ws://myapp.test/*", 1), ("wss://myapp.test/*", 1)]
HELLO = b"\x05\x02\x00\x02"
GREETED = b"\x05\x00"
SUCCEEDED = b"\x05\x00\x00\x01" + bytes(6)


def ask_for(host: str, port: int, *, command: int = 1) -> bytes:
    """A request for a name."""
    return b"\x05%c\x00\x03%c%s" % (command, len(host), host.encode()) + port.to_bytes(2, "big")


async def reply(peer: Peer) -> int:
    """Read the reply's number; all else of it has no meaning."""
    async with asyncio.timeout(PATIENCE):
        answer = await peer.reader.readexactly(10)
    assert (answer[0], answer[2:]) == (5, SUCCEEDED[2:])
    return answer[1]


async def greet(peer: Peer) -> None:
    """Exchange greetings."""
    await peer.send(HELLO)
    async with asyncio.timeout(PATIENCE):
        assert await peer.reader.readexactly(2) == GREETED


@BOTH_LOOPS
class TestTunnels:
    async def test_a_socket_to_a_name_that_no_dns_knows(self) -> None:
        async with Host(ROWS) as host, Peer.connect(host) as peer:
            recorder = Recorder(host)
            await greet(peer)
            await peer.send(ask_for("MyApp.test", 80))
            assert await reply(peer) == 0
            assert (await peer.ask(page_request())).status == 101
            assert (await recorder.wait_for(WebSocketUpgrade)).url == "ws://myapp.test/chat"

    async def test_a_secure_one(self) -> None:
        async with Host(ROWS) as host, Peer.connect(host) as peer:
            await greet(peer)
            await peer.send(ask_for("myapp.test", 443))
            assert await reply(peer) == 0
            await begin_tls(peer, trusting(host), "myapp.test")
            head = request("/chat", "myapp.test", origin="https://myapp.test")
            assert (await peer.ask(head)).status == 101

    @pytest.mark.parametrize("slowly", [False, True])
    async def test_in_one_packet_and_byte_by_byte(self, slowly: bool) -> None:
        async with Host(ROWS) as host, Peer.connect(host) as peer:
            recorder = Recorder(host)
            whole = HELLO + ask_for("myapp.test", 80) + page_request() + frame(TEXT, "early")
            await (peer.send_slowly(whole) if slowly else peer.send(whole))
            assert (await recorder.wait_for(WebSocketReceive)).data == "early"

    @pytest.mark.parametrize("kind", ["name", "address"])
    async def test_what_no_rule_could_match_goes_on(self, kind: str) -> None:
        async with server(echo) as port, Host(ROWS) as host, Peer.connect(host) as peer:
            await greet(peer)
            by_address = b"\x05\x01\x00\x01\x7f\x00\x00\x01" + port.to_bytes(2, "big")
            await peer.send((by_address if kind == "address" else ask_for("localhost", port)) + b"\x00\xff!")
            assert await reply(peer) == 0
            assert await peer.reader.readexactly(3) == b"\x00\xff!"

    async def test_an_address_of_ipv6(self) -> None:
        async with Host([("ws://[::1]:8080/*", 1)]) as host, Peer.connect(host) as peer:
            await greet(peer)
            await peer.send(b"\x05\x01\x00\x04" + bytes(15) + b"\x01" + (8080).to_bytes(2, "big"))
            assert await reply(peer) == 0
            head = request("/", "[::1]:8080", origin="http://[::1]:8080")
            assert (await peer.ask(head)).status == 101


@BOTH_LOOPS
class TestRefused:
    async def refusal(self, host: Host, sent: bytes) -> int:
        """Greet, ask, and see the connection end after the reply."""
        async with Peer.connect(host) as peer:
            await greet(peer)
            await peer.send(sent)
            number = await reply(peer)
            assert await peer.rest() == b""
        return number

    async def test_no_method_that_we_know(self) -> None:
        async with Host(ROWS) as host, Peer.connect(host) as peer:
            await peer.send(b"\x05\x01\x02")
            assert await peer.rest() == b"\x05\xff"

    async def test_no_method_at_all(self) -> None:
        async with Host(ROWS) as host, Peer.connect(host) as peer:
            await peer.send(b"\x05\x00")
            assert await peer.rest() == b"\x05\xff"

    @pytest.mark.parametrize("command", [2, 3, 9])
    async def test_a_command_other_than_connect(self, command: int) -> None:
        async with Host(ROWS) as host:
            assert await self.refusal(host, ask_for("myapp.test", 80, command=command)) == 7

    @pytest.mark.parametrize(
        ("sent", "number"),
        [
            (ask_for("myapp.test", 0), 1),
            (ask_for("a/b", 80), 1),
            (ask_for("", 80), 1),
            (b"\x04\x01\x00\x03\x01x\x00\x50", 1),
            (b"\x05\x01\x00\x07\x01x\x00\x50", 8),
        ],
    )
    async def test_a_request_that_is_none(self, sent: bytes, number: int) -> None:
        async with Host(ROWS) as host:
            assert await self.refusal(host, sent) == number

    async def test_the_own_port(self) -> None:
        async with Host(ROWS) as host:
            for name in ("localhost", "127.0.0.1", "127.1"):
                assert await self.refusal(host, ask_for(name, host.address[1])) == 2

    async def test_a_name_that_does_not_resolve(self) -> None:
        async with Host(ROWS) as host:
            assert await self.refusal(host, ask_for("no-such-name.invalid", 80)) == 4

    async def test_switched_off(self) -> None:
        async with Host(ROWS, proxy=["connect"]) as host, Peer.connect(host) as peer:
            await peer.send(HELLO)
            assert (await peer.answer()).status == 501


def test_a_request_is_read_wherever_it_is_cut() -> None:
    whole = ask_for("myapp.test", 8080)
    assert [read_request(whole[:size]) for size in range(len(whole))] == [None] * len(whole)
    asked = read_request(whole + b"more")
    assert asked is not None
    assert (asked.target[:2], asked.size) == (("myapp.test", 8080), len(whole))


def test_an_unknown_kind_of_address_is_refused_at_once() -> None:
    with pytest.raises(Refused, match="8"):
        read_request(b"\x05\x01\x00\x09\x00")
