"""The door: every first byte that there is, and ways in that are switched off."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

import pytest

from interceptor import Host, InvalidArgument, Security
from interceptor.exceptions import HandshakeFailure
from interceptor.ways.door import ProxyWay, ways_in

from .peer import PATIENCE, Peer, Recorder, request
from .proxied import begin_tls, page_request, trusting, tunnel
from .wire import BOTH_LOOPS

ROWS = [("ws://myapp.test/*", 1)]
ALL = {"direct", "connect", "absolute", "socks5"}


@BOTH_LOOPS
async def test_every_first_byte_and_then_garbage() -> None:
    """Whatever it is, it is answered or dropped, and nobody else has to suffer."""
    async with Host(ROWS) as host:
        recorder = Recorder(host)
        for first in range(256):
            async with Peer.connect(host) as peer:
                await peer.send(bytes((first,)) + bytes(range(255, 0, -1)) + b"\r\n\r\n")
                peer.half_close()
                try:
                    said = await peer.rest()
                except ConnectionResetError:
                    continue
                assert said[:12] in (b"", b"HTTP/1.1 400") or said[0] in (0x05, 0x15), (first, said)
        async with Peer.connect(host) as peer:
            await tunnel(peer, "myapp.test:80")
            assert (await peer.ask(page_request())).status == 101
        assert recorder.names()[0] == "WebSocketUpgrade"


@BOTH_LOOPS
class TestSwitchedOff:
    async def test_tunnels(self) -> None:
        async with Host(ROWS, proxy=["absolute", "socks5"]) as host, Peer.connect(host) as peer:
            assert (await tunnel(peer, "myapp.test:80")).status == 501

    async def test_what_is_made_to_the_host_itself(self) -> None:
        async with Host(ROWS, direct=False) as host:
            async with Peer.connect(host) as peer:
                assert (await peer.ask(request("/", Peer.authority(host)))).status == 501
            async with Peer.connect(host) as peer:
                await peer.send(b"\x16\x03\x01")
                assert (await peer.answer()).status == 501
            async with Peer.connect(host) as peer:
                await tunnel(peer, "myapp.test:80")
                assert (await peer.ask(page_request())).status == 101

    async def test_tls_in_tunnels_stays(self) -> None:
        async with Host([("wss://myapp.test/*", 1)], direct=False) as host, Peer.connect(host) as peer:
            await tunnel(peer, "myapp.test:443")
            await begin_tls(peer, trusting(host), "myapp.test")
            head = request("/", "myapp.test", origin="https://myapp.test")
            assert (await peer.ask(head)).status == 101


@pytest.mark.parametrize(
    ("proxy", "direct", "ways"),
    [
        (True, True, ALL),
        (False, True, {"direct"}),
        (True, False, ALL - {"direct"}),
        (("connect",), True, {"direct", "connect"}),
        ({"socks5", "absolute"}, False, {"socks5", "absolute"}),
    ],
)
def test_which_ways_are_open(proxy: bool | Collection[ProxyWay], direct: bool, ways: set[str]) -> None:
    assert ways_in(proxy, direct, Security()) == ways


def test_a_host_for_other_machines_is_no_proxy() -> None:
    assert ways_in(True, True, Security(allow_remote=True)) == {"direct"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"proxy": ["http"]}, "'http'; there are absolute, connect, socks5"),
        ({"proxy": "connect"}, r"write \['connect'\]"),
        ({"proxy": False, "direct": False}, "no way in is left open"),
    ],
)
def test_ways_that_make_no_sense(options: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        Host(**options)  # type: ignore[arg-type]


class Afar:
    """A wire to another machine, which no port that listens on loopback can have."""

    is_local = False


def test_the_proxy_asks_where_a_client_is_all_the_same() -> None:
    proxy = Host()._proxy
    with pytest.raises(HandshakeFailure, match="on this machine only"):
        proxy.check_local(Afar())  # type: ignore[arg-type]


async def test_many_slow_clients_do_not_keep_others_out() -> None:
    async with Host(ROWS) as host:
        slow = [await asyncio.open_connection(*host.address) for _ in range(200)]
        for number, (_, writer) in enumerate(slow):
            writer.write((b"\x05", b"\x16\x03", b"CONN", b"")[number % 4])
        async with asyncio.timeout(PATIENCE), Peer.connect(host) as peer:
            await tunnel(peer, "myapp.test:80")
            assert (await peer.ask(page_request())).status == 101
        for _, writer in slow:
            writer.transport.abort()
