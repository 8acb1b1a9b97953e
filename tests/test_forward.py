"""HTTP through the proxy: requests and answers go on as they come, one after the other on one connection."""

from __future__ import annotations

import asyncio
import resource
import sys

import pytest

from interceptor import Host, Tls

from .forwarded import ROWS, Web, get, ok, read_exactly
from .peer import Peer, until
from .proxied import RealTls, server, tunnel
from .proxied import real_tls as real_tls
from .wire import BOTH_LOOPS
from .wire import lines as lines

pytestmark = BOTH_LOOPS


class TestAsTheyCome:
    async def test_the_target_is_all_that_changes(self) -> None:
        async with Web.open(page=ok()) as web, Host(ROWS) as host, Peer.connect(host) as peer:
            at = f"127.0.0.1:{web.port}"
            odd = "X-Odd:   kept as it is \r\nACCEPT: */*\r\nProxy-Connection: keep-alive\r\n"
            await peer.send(get(web.url("/page?a=b&&c=%20"), at, extra=odd))
            await read_exactly(peer, ok())
        assert web.heads == [(1, f"GET /page?a=b&&c=%20 HTTP/1.1\r\nHost: {at}\r\n{odd}\r\n".encode())]

    async def test_no_path_is_the_root_and_options_has_a_star(self) -> None:
        async with Web.open(**{"": ok(), "*": ok()}) as web, Host(ROWS) as host, Peer.connect(host) as peer:
            at = f"127.0.0.1:{web.port}"
            for method in ("GET", "OPTIONS"):
                await peer.send(get(web.url(""), at, method=method))
                await read_exactly(peer, ok())
            await peer.send(get(f"HTTP://{at}?q", at))
            await read_exactly(peer, ok())
        targets = [head.split(b" ")[1] for _, head in web.heads]
        assert targets == [b"/", b"*", b"/?q"]

    async def test_one_request_after_the_other_on_one_connection_each(self) -> None:
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n"
        chunked = head + b"5;x=y\r\nhello\r\n0\r\nX: y\r\n\r\n"
        answers = {
            "chunked": chunked,
            "none": b"HTTP/1.1 204 No Content\r\nX: y\r\n\r\n",
            "same": b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
            "head": b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n",
            "early": b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + ok(),
        }
        async with Web.open(page=ok(), **answers) as web, Host(ROWS) as host, Peer.connect(host) as peer:
            at = f"127.0.0.1:{web.port}"
            for name, answer in [*answers.items(), ("page", ok())]:
                await peer.send(get(web.url(f"/{name}"), at, method="HEAD" if name == "head" else "GET"))
                await read_exactly(peer, answer)
        assert [number for number, _ in web.heads] == [1] * 6

    async def test_requests_that_come_before_they_are_asked_for(self) -> None:
        async with (
            Web.open(one=ok(b"1"), two=ok(b"22")) as web,
            Host(ROWS) as host,
            Peer.connect(host) as peer,
        ):
            at = f"127.0.0.1:{web.port}"
            await peer.send(get(web.url("/one"), at) + get(web.url("/two"), at) + get(web.url("/one"), at))
            await read_exactly(peer, ok(b"1") + ok(b"22") + ok(b"1"))

    async def test_byte_by_byte(self) -> None:
        async with Web.open(body=ok()) as web, Host(ROWS) as host, Peer.connect(host) as peer:
            at = f"127.0.0.1:{web.port}"
            post = get(web.url("/body"), at, method="POST", extra="Content-Length: 4\r\n") + b"four"
            await peer.send_slowly(post + post)
            await read_exactly(peer, ok() + ok())
        assert web.bodies == [b"four", b"four"]

    async def test_another_server_on_the_same_connection(self) -> None:
        async with Web.open(page=ok(b"one")) as one, Web.open(page=ok(b"two")) as two:
            async with Host(ROWS) as host, Peer.connect(host) as peer:
                for web, body in ((one, b"one"), (two, b"two"), (one, b"one")):
                    await peer.send(get(web.url("/page"), f"127.0.0.1:{web.port}"))
                    await read_exactly(peer, ok(body))
            assert [number for number, _ in one.heads] == [1, 2]

    async def test_a_server_that_left_between_two_requests(self) -> None:
        async with Web.open(close=ok(), page=ok()) as web, Host(ROWS) as host, Peer.connect(host) as peer:
            at = f"127.0.0.1:{web.port}"
            await peer.send(get(web.url("/close"), at))
            await read_exactly(peer, ok())
            await until(lambda: len(host._listener.transports) == 2)
            for _ in range(3):
                await asyncio.sleep(0)
            await peer.send(get(web.url("/page"), at))
            await read_exactly(peer, ok())

    @pytest.mark.parametrize(("method", "status"), [("GET", 200), ("POST", 502)])
    async def test_a_server_that_leaves_as_the_next_request_comes(self, method: str, status: int) -> None:
        """What does no harm if it is made twice is made twice; all else is the client's to decide."""
        came = 0

        async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal came
            await reader.readuntil(b"\r\n\r\n")
            came += 1
            writer.write(ok())
            await reader.readuntil(b"\r\n\r\n")

        async with server(once) as port, Host(ROWS) as host, Peer.connect(host) as peer:
            at = f"127.0.0.1:{port}"
            await peer.send(get(f"http://{at}/", at))
            await read_exactly(peer, ok())
            extra = "Content-Length: 0\r\n" if method == "POST" else ""
            answer = await peer.ask(get(f"http://{at}/", at, method=method, extra=extra))
            assert (answer.status, came) == (status, 2 if method == "GET" else 1)

    async def test_an_answer_that_ends_with_its_connection(self) -> None:
        answer = b"HTTP/1.0 200 OK\r\n\r\nall there is"
        async with Web.open(close=answer) as web, Host(ROWS) as host, Peer.connect(host) as peer:
            await peer.send(get(web.url("/close"), f"127.0.0.1:{web.port}"))
            assert await peer.rest() == answer

    async def test_a_client_that_wants_the_connection_closed(self) -> None:
        async with Web.open(page=ok()) as web, Host(ROWS) as host, Peer.connect(host) as peer:
            at = f"127.0.0.1:{web.port}"
            await peer.send(get(web.url("/page"), at, extra="Connection: close\r\n"))
            assert await peer.rest() == ok()
        async with Web.open(page=ok()) as web, Host(ROWS) as host, Peer.connect(host) as peer:
            await peer.send(f"GET {web.url('/page')} HTTP/1.0\r\n\r\n".encode())
            assert await peer.rest() == ok()

    async def test_expect_continue(self) -> None:
        go_on = b"HTTP/1.1 100 Continue\r\n\r\n"

        async def wait_for_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(go_on)
            writer.write(ok(await reader.readexactly(4)))
            await reader.read()

        async with server(wait_for_body) as port, Host(ROWS) as host, Peer.connect(host) as peer:
            extra = "Content-Length: 4\r\nExpect: 100-continue\r\n"
            await peer.send(get(f"http://127.0.0.1:{port}/", f"127.0.0.1:{port}", method="PUT", extra=extra))
            await read_exactly(peer, go_on)
            await peer.send(b"body")
            await read_exactly(peer, ok(b"body"))

    async def test_chunked_body(self) -> None:
        body = b"3\r\nabc\r\n0\r\nX: trailer\r\n\r\n"
        got = bytearray()

        async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            got.extend(await reader.readuntil(b"trailer\r\n\r\n"))
            writer.write(ok())
            got.extend(await reader.read())

        async with server(take) as port, Host(ROWS) as host, Peer.connect(host) as peer:
            at = f"127.0.0.1:{port}"
            head = get(f"http://{at}/", at, method="POST", extra="Transfer-Encoding: chunked\r\n")
            await peer.send(head + body)
            await read_exactly(peer, ok())
        assert bytes(got).endswith(b"chunked\r\n\r\n" + body)

    async def test_an_answer_before_the_body_is_through(self) -> None:
        no = b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

        async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(no)

        async with server(refuse) as port, Host(ROWS) as host, Peer.connect(host) as peer:
            at = f"127.0.0.1:{port}"
            await peer.send(get(f"http://{at}/", at, method="POST", extra="Content-Length: 1000000000\r\n"))
            await peer.send(bytes(100_000))
            await read_exactly(peer, no)

    async def test_a_client_that_ends_its_side_gets_its_answer(self) -> None:
        async def answer_at_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.write(ok(extra="Connection: close\r\n"))

        async with server(answer_at_the_end) as port, Host(ROWS) as host, Peer.connect(host) as peer:
            await peer.send(get(f"http://127.0.0.1:{port}/", f"127.0.0.1:{port}"))
            peer.half_close()
            assert await peer.rest() == ok(extra="Connection: close\r\n")

    async def test_https_by_the_proxy(self, real_tls: RealTls) -> None:
        async def page(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(ok())
            await reader.read()

        async with (
            server(page, real_tls.context("localhost")) as port,
            Host(ROWS, tls=Tls(trust=real_tls.path)) as host,
            Peer.connect(host) as peer,
        ):
            await peer.send(get(f"https://localhost:{port}/", f"localhost:{port}"))
            await read_exactly(peer, ok())


class TestMuch:
    async def test_a_big_download_waits_for_a_slow_reader(self) -> None:
        size, sent = 256 * 2**20, 0

        async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal sent
            await reader.readuntil(b"\r\n\r\n")
            writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode())
            for _ in range(size // 2**20):
                writer.write(bytes(2**20))
                await writer.drain()
                sent += 2**20

        async with server(pour) as port, Host(ROWS) as host:
            reader, writer = await asyncio.open_connection(*host.address, limit=2**16)
            writer.write(get(f"http://127.0.0.1:{port}/", f"127.0.0.1:{port}"))
            await reader.readuntil(b"\r\n\r\n")
            before = memory()
            seen, quiet = -1, 0
            while quiet < 50:
                quiet, seen = (quiet + 1 if seen == sent else 0), sent
                await asyncio.sleep(0.001)
            assert sent < 64 * 2**20, "what nobody reads is not fetched"
            while await reader.read(2**20):
                if reader.at_eof():
                    break
                if sent == size:
                    break
            writer.transport.abort()
            assert memory() - before < 32 * 2**20

    async def test_a_big_upload(self) -> None:
        async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(32 * 2**20)
            writer.write(ok())
            await reader.read()

        async with server(count) as port, Host(ROWS) as host, Peer.connect(host) as peer:
            at = f"127.0.0.1:{port}"
            await peer.send(get(f"http://{at}/", at, method="PUT", extra=f"Content-Length: {32 * 2**20}\r\n"))
            for _ in range(32):
                await peer.send(bytes(2**20))
            await read_exactly(peer, ok())


def memory() -> int:
    """The most memory that this process ever had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


SMUGGLED = {
    "two lengths": "Content-Length: 4\r\nContent-Length: 5\r\n",
    "the same length twice": "Content-Length: 4\r\nContent-Length: 4\r\n",
    "a list of lengths": "Content-Length: 4, 5\r\n",
    "length and coding": "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
    "an unknown coding": "Transfer-Encoding: gzip, chunked\r\n",
    "a coding twice": "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
    "an odd coding": "Transfer-Encoding: xchunked\r\n",
    "an odd length": "Content-Length: +4\r\n",
    "a negative length": "Content-Length: -4\r\n",
    "a bare CR": "X: a\rContent-Length: 4\r\n",
    "a bare LF": "X: a\nContent-Length: 4\r\n",
    "a folded line": "X: a\r\n b\r\n",
    "a space before the colon": "Content-Length : 4\r\n",
    "no name": ": 4\r\n",
    "the same length in a list": "Content-Length: 4, 4\r\n",
    "a blank in a length": "Content-Length: 4 4\r\n",
    "a NUL": "X: a\0b\r\n",
    "two hosts": "Host: other.test\r\n",
}


class TestRefused:
    @pytest.mark.parametrize("way", ["absolute", "tunnel"])
    @pytest.mark.parametrize("what", SMUGGLED)
    async def test_smuggling(self, what: str, way: str) -> None:
        async with Web.open(page=ok()) as web:
            at = f"127.0.0.1:{web.port}"
            async with Host([(f"ws://{at}/*", 1)]) as host, Peer.connect(host) as peer:
                if way == "tunnel":
                    await tunnel(peer, at)
                url = web.url("/page") if way == "absolute" else "/page"
                answer = await peer.ask(get(url, at, method="POST", extra=SMUGGLED[what]) + b"four")
                assert answer.status == 400, answer
                assert web.heads == []

    async def test_a_body_that_is_no_chunk(self) -> None:
        async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()

        async with server(wait) as port, Host(ROWS) as host:
            at = f"127.0.0.1:{port}"
            head = get(f"http://{at}/", at, method="POST", extra="Transfer-Encoding: chunked\r\n")
            for body in (
                b"zz\r\n",
                b"3\r\nabcd\r\n",
                b"0\r\n\n",
                b"0\r\nX: y\r\n z\r\n\r\n",
                b"1;a\rb\r\nx\r\n",
            ):
                async with Peer.connect(host) as peer:
                    await peer.send(head)
                    await asyncio.sleep(0)
                    assert (await peer.ask(body)).status == 400

    async def test_a_host_field_that_differs_is_misdirected(self) -> None:
        async with Host(ROWS) as host, Peer.connect(host) as peer:
            assert (await peer.ask(get("http://one.test/", "two.test"))).status == 421

    @pytest.mark.parametrize(
        "url", ["ftp://x.test/", "http://", "http://u@x.test/", "http://x:0/", "x.test/"]
    )
    async def test_a_target_that_is_no_url_of_ours(self, url: str) -> None:
        async with Host(ROWS) as host, Peer.connect(host) as peer:
            assert (await peer.ask(get(url, "x.test"))).status == 400

    @pytest.mark.parametrize(
        "name", ["127.1", "0.0.0.0", "[::ffff:127.0.0.1]", "[::1]", "2130706433", "0x7f.1"]
    )
    async def test_the_own_port_in_other_spellings(self, name: str) -> None:
        async with Host(ROWS) as host, Peer.connect(host) as peer:
            at = f"{name}:{host.address[1]}"
            answer = await peer.ask(get(f"http://{at}/", at))
            assert answer.status in (404, 426, 508), answer  # What is the host's own needs no proxy.

    async def test_a_server_that_is_not_there(self) -> None:
        async with Web.open() as web:
            pass
        async with Host(ROWS) as host:
            for at, why in (
                (f"127.0.0.1:{web.port}", b"cannot be reached"),
                ("no.invalid", b"does not resolve"),
            ):
                async with Peer.connect(host) as peer:
                    answer = await peer.ask(get(f"http://{at}/", at))
                    assert (answer.status, why in answer.body) == (502, True)

    @pytest.mark.parametrize("said", [b"", b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Le"])
    async def test_a_server_that_answers_nothing_of_use(self, said: bytes) -> None:
        async with Web.open(close=said) as web, Host(ROWS) as host, Peer.connect(host) as peer:
            answer = await peer.ask(get(web.url("/close"), f"127.0.0.1:{web.port}"))
            assert answer.status == 502

    async def test_switched_off(self) -> None:
        async with Host(ROWS, proxy=["connect", "socks5"]) as host, Peer.connect(host) as peer:
            assert (await peer.ask(get("http://x.test/", "x.test"))).status == 501
        async with Host(ROWS, direct=False) as host, Peer.connect(host) as peer:
            assert (await peer.ask(get("/", Peer.authority(host)))).status == 501
