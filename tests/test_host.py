"""Host: its arguments, its life, where it is, its table, and who is told of what."""

from __future__ import annotations

import asyncio
import functools
import inspect
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest

import interceptor
from interceptor import (
    Event,
    Host,
    InterceptedURLs,
    InterceptorError,
    InvalidArgument,
    InvalidHandler,
    InvalidRule,
    InvalidState,
    Limits,
    Mode,
    Rule,
    Security,
    Session,
    SocketClosed,
    Timeouts,
    UnknownEvent,
    UnknownSocket,
    WebSocketClose,
    WebSocketError,
    WebSocketReceive,
    WebSocketUpgrade,
)

from .peer import PATIENCE, TEXT, Peer, Recorder, close_frame, frame, request, until
from .programs import ask, make_host, opened
from .wire import ANYONE, Line, needs_ipv6
from .wire import lines as lines
from .wire import quiet_loop as quiet_loop


class TestNames:
    """The public names."""

    def test_the_package_has_them(self) -> None:
        promised = {"Host", "InterceptedURLs", "Rule", "Mode", "Limits", "Timeouts", "Security"}
        promised |= {
            "HTTPRequest",
            "WebSocketUpgrade",
            "WebSocketReceive",
            "WebSocketClose",
            "WebSocketError",
        }
        promised |= {"InterceptorError", "UnknownSocket"}
        assert promised <= set(interceptor.__all__)
        assert all(hasattr(interceptor, name) for name in interceptor.__all__)
        assert re.fullmatch(r"\d+\.\d+\.\d+.*", interceptor.__version__)

    def test_arguments_and_defaults(self) -> None:
        parameters = inspect.signature(Host).parameters
        defaults = {name: parameter.default for name, parameter in parameters.items()}
        promised = {
            "intercepted_urls": (),
            "root": "dyalog_root",
            "name": "host",
            "listen": ("127.0.0.1", 0),
            "subprotocols": (),
            "compression": True,
            "chunks": False,
            "limits": Limits(),
            "timeouts": Timeouts(),
            "security": Security(),
        }
        assert {name: defaults[name] for name in promised} == promised
        by_position = [p.name for p in parameters.values() if p.kind is not inspect.Parameter.KEYWORD_ONLY]
        assert by_position == ["intercepted_urls"]

    def test_values(self) -> None:
        assert (Mode.PASS, Mode.AUTO, Mode.MANUAL) == (0, 1, 2)
        timeouts, limits, security = Timeouts(), Limits(), Security()
        assert (timeouts.head, timeouts.answer, timeouts.close) == (10, 30, 10)
        assert (timeouts.ping, timeouts.pong) == (20, 20)
        assert (limits.head, limits.fields, limits.message) == (16384, 100, 16 * 2**20)
        assert (limits.sockets, limits.pending) == (10_000, 1_000)
        assert (limits.read_buffer, limits.write_buffer) == (2**20, 16 * 2**20)
        assert (security.origins, security.allow_no_origin, security.token) == ((), False, None)
        assert security.allow_remote is False

    @pytest.mark.parametrize(
        "error", [UnknownSocket, InvalidState, InvalidRule, InvalidHandler, SocketClosed]
    )
    def test_errors_are_of_one_tree(self, error: type[Exception]) -> None:
        assert issubclass(error, InterceptorError)


class TestArguments:
    """What a host can be made of."""

    @pytest.mark.parametrize(
        ("listen", "said"),
        [
            (("127.0.0.1", 65536), "65536"),
            (("127.0.0.1", -1), "-1"),
            (("127.0.0.1", "80"), "'80'"),
            (("example.com", 0), "example.com"),
            (("", 0), "IP address"),
            ("127.0.0.1:80", "address, port"),
            (("127.0.0.1",), "address, port"),
            (8080, "address, port"),
            (None, "address, port"),
            (("0.0.0.0", 0), "allow_remote=True"),
            (("::", 0), "allow_remote=True"),
            (("192.168.1.5", 0), "allow_remote=True"),
        ],
    )
    def test_bad_addresses(self, listen: tuple[str, int], said: str) -> None:
        with pytest.raises(InvalidArgument, match=re.escape(said)):
            Host(listen=listen)

    def test_a_remote_address_that_is_meant(self) -> None:
        Host(listen=("0.0.0.0", 0), security=Security(allow_remote=True))

    @pytest.mark.parametrize(
        "rows", [[("ws://x/*", 3)], [("", 1)], [("ftp://x/*", 1)], [("ws://x/*",)], ["ws://x/*"]]
    )
    def test_bad_rows_are_named(self, rows: list[tuple[str, int]]) -> None:
        with pytest.raises(InvalidRule, match="row 1 of InterceptedURLs") as caught:
            Host([("ws://fine/*", 1), *rows])
        assert caught.value.row == 1

    @pytest.mark.parametrize("root", ["", "a b", "a/b", "a:80", "http://a", "*"])
    def test_bad_roots(self, root: str) -> None:
        with pytest.raises(InvalidArgument):
            Host(root=root)

    @pytest.mark.parametrize("subprotocols", [["a b"], [""], ["a", "a"]])
    def test_bad_subprotocols(self, subprotocols: list[str]) -> None:
        with pytest.raises(InvalidArgument):
            Host(subprotocols=subprotocols)

    async def test_it_can_be_told_what_it_is(self) -> None:
        host = Host(name="mine")
        assert repr(host) == "<Host 'mine' not started>"
        async with host as entered:
            assert entered is host
            assert repr(host) == "<Host 'mine' running>"
        assert repr(host) == "<Host 'mine' stopped>"

    async def test_the_name_and_the_host_are_in_events(self) -> None:
        host = Host(name="mine", security=ANYONE)
        seen = Recorder(host)
        async with host, opened(host, seen):
            assert seen.events[0].object is host
            assert seen.events[0].message()[:2] == ["mine", "WebSocketUpgrade"]


class TestLife:
    """start() and stop()."""

    async def test_a_host_is_started_once(self) -> None:
        host = Host()
        await host.start()
        with pytest.raises(InvalidState, match="running"):
            await host.start()
        await host.stop()
        await host.stop()
        with pytest.raises(InvalidState, match="stopped"):
            await host.start()
        with pytest.raises(InvalidState, match="make another"):
            async with host:
                raise AssertionError("it was entered")

    def test_a_with_that_is_not_the_hosts_says_which_is(self) -> None:
        host: Any = Host()
        right = re.escape("write `async with host:`, or `with host.in_thread():`")
        with pytest.raises(InvalidState, match=right), host:
            raise AssertionError("it was entered")
        with host.in_thread():  # The host is as good as new.
            assert host.address

    async def test_a_thread_of_its_own_in_asyncio_says_what_to_write(self) -> None:
        threaded: Any = Host().in_thread()
        with pytest.raises(InvalidState, match="`async with host:` in an `async def`"):
            async with threaded:
                raise AssertionError("it was entered")

    def test_stop_before_start_is_not_silent(self) -> None:
        host = Host()
        with pytest.raises(InvalidState, match=r"nothing to stop; write `async with host:`"):
            host.stop()
        with host.in_thread():
            assert host.address

    async def test_use_before_and_after(self) -> None:
        host = make_host()
        for phase in ("not started", "stopped"):
            for where in (lambda: host.address, host.http_url, host.ws_url):
                with pytest.raises(InvalidState, match=phase):
                    where()
            answer: Any = host.answer
            for use in (host.WebSocketSend, answer):
                with pytest.raises(UnknownSocket):
                    use("0123456789abcde", "x")
            with pytest.raises(UnknownSocket):
                host.WebSocketClose("0123456789abcde")
            assert not host.sockets
            assert host.broadcast(["0123456789abcde"], "x") == 0
            assert list(host.intercepted_urls)
            if phase == "not started":
                async with host:
                    assert host.address[1] > 0

    async def test_an_id_of_a_stopped_host(self) -> None:
        host = make_host()
        seen = Recorder(host)
        async with host, opened(host, seen) as (peer, id):
            await peer.send(close_frame())
            await seen.wait_for(WebSocketClose)
        with pytest.raises(UnknownSocket):
            host.WebSocketSend(id, "late")

    async def test_two_hosts_at_once(self) -> None:
        async with make_host() as one, make_host() as two:
            assert one.address != two.address
            seen_one, seen_two = Recorder(one), Recorder(two)
            async with opened(one, seen_one) as (_, first), opened(two, seen_two) as (_, second):
                assert list(one.sockets) == [first]
                assert list(two.sockets) == [second]
                with pytest.raises(UnknownSocket):
                    one.WebSocketSend(second, "x")

    async def test_a_manual_row_needs_a_callback(self, lines: list[Line]) -> None:
        for callback in (None, "WebSocketUpgrade", "All"):
            host = Host([("ws://auto/*", 1), ("ws://gate/*", 2), ("ws://other/*", 2)])
            if callback is not None:
                host.on(callback)(lambda event: None)
            async with host:
                pass
        warnings = [line for line in lines if line["log_level"] == "warning"]
        assert len(warnings) == 1
        assert "WebSocketUpgrade" in warnings[0]["event"]
        assert warnings[0]["pattern"] == "ws://gate/*"

    async def test_a_manual_route_needs_one_too(self, lines: list[Line]) -> None:
        host = Host()

        @host.route("ws://gate/*", mode=Mode.MANUAL)
        async def handler(socket: Session) -> None:
            """Nothing."""

        async with host:
            pass
        assert [line["pattern"] for line in lines if line["log_level"] == "warning"] == ["ws://gate/*"]

    @pytest.mark.parametrize(
        ("rows", "which", "options", "is_told"),
        [
            ([("ws://myapp/*", 1), ("http://myapp/*", 0)], "HTTPRequest", {}, True),
            ([("wss://myapp/*", 1)], 840, {}, True),
            ([("ws://myapp/*", 1)], "All", {}, False),
            ([("ws://myapp/*", 1)], "WebSocketReceive", {}, False),
            ([("ws://myapp/*", 1)], "HTTPRequest", {"ui": "docs"}, False),
            ([("ws://myapp/*", 1), ("https://myapp/*", 1)], "HTTPRequest", {}, False),
            ([("*", 1)], "HTTPRequest", {}, False),
            ([(re.compile("http:.*"), 1)], "HTTPRequest", {}, False),
            ([], "HTTPRequest", {}, False),
        ],
    )
    async def test_a_callback_for_pages_needs_a_rule_for_pages(
        self, rows: list[Any], which: Any, options: dict[str, Any], is_told: bool, lines: list[Line]
    ) -> None:
        host = Host(rows, root="myapp", **options)

        @host.on(which)
        def take(event: Any) -> None:
            """Nothing."""

        async with host:
            pass
        warnings = [line["event"] for line in lines if line["log_level"] == "warning"]
        assert len(warnings) == is_told
        assert all('("*://myapp/*", 1) or ("http://myapp/*", 1)' in line for line in warnings)


class TestWhereItIs:
    """address, http_url() and ws_url()."""

    async def test_address(self) -> None:
        async with Host() as host:
            assert isinstance(host.address, tuple)
            assert host.address[0] == "127.0.0.1"
            assert 0 < host.address[1] < 65536

    async def test_localhost(self) -> None:
        async with Host(listen=("localhost", 0)) as host:
            assert host.address[0] == "127.0.0.1"

    async def test_http_url(self) -> None:
        async with Host() as host:
            base = f"http://127.0.0.1:{host.address[1]}"
            assert host.http_url() == host.http_url("/") == host.http_url("") == f"{base}/"
            assert host.http_url("/a?b=c") == host.http_url("a?b=c") == f"{base}/a?b=c"

    @pytest.mark.parametrize(
        ("target", "reported"),
        [
            ("/", "ws://myapp/"),
            ("/chat", "ws://myapp/chat"),
            ("/chat?a=1&b=%20", "ws://myapp/chat?a=1&b=%20"),
            ("/chat?", "ws://myapp/chat?"),
            ("/a%2Fb/\u00e9", "ws://myapp/a%2Fb/%C3%A9"),
            ("/chat#fragment", "ws://myapp/chat"),
            ("/a/../b", "ws://myapp/b"),
            ("//double", "ws://myapp//double"),
            ("ws://gate/in", "ws://gate/in"),
            ("ws://gate/in?a=1", "ws://gate/in?a=1"),
            ("ws://gate", "ws://gate/"),
            ("WS://GATE:80/In", "ws://gate/In"),
            ("wss://gate:8443/in", "wss://gate:8443/in"),
            ("wss://gate/in", "wss://gate/in"),
            ("ws://[::1]:9/in", "ws://[::1]:9/in"),
            ("ws://b\u00fccher.example/", "ws://xn--bcher-kva.example/"),
            ("ws://myapp/chat", "ws://myapp/chat"),
            ("ws://gate/.interceptor/ws/x/y", "ws://gate/.interceptor/ws/x/y"),
        ],
    )
    async def test_ws_url(self, target: str, reported: str) -> None:
        """Whoever connects to it, by nothing but what the URL says, comes to the URL that was meant."""
        async with Host([("*", 1)], root="myapp") as host:
            seen = Recorder(host)
            url = host.ws_url(target)
            scheme, authority, path, query, _ = urlsplit(url)
            assert (scheme, authority) == ("ws", f"127.0.0.1:{host.address[1]}")
            async with Peer.connect(host) as peer:
                answer = await peer.ask(request(f"{path}?{query}", authority))
                assert answer.status == 101, answer
            upgrade = await seen.wait_for(WebSocketUpgrade)
            assert upgrade.url == reported
            assert "token" not in str(upgrade.headers)

    async def test_ws_url_of_the_own_address(self) -> None:
        async with Host() as host:
            for name in ("127.0.0.1", "localhost"):
                own = f"ws://{name}:{host.address[1]}/x"
                assert host.ws_url(own) == host.ws_url("/x")

    @pytest.mark.parametrize("target", ["chat", "", "ftp://x/", "ws://", "ws://a b/", "?x", "http//x"])
    async def test_bad_targets(self, target: str) -> None:
        async with Host() as host:
            with pytest.raises(InvalidArgument):
                host.ws_url(target)

    async def test_each_host_has_its_own_token(self) -> None:
        async with Host() as one, Host() as two, Host(security=Security(token="t" * 16)) as three:
            tokens = [host.ws_url().partition("?token=")[2] for host in (one, two, three)]
            assert len(set(tokens)) == 3
            assert all(len(token) >= 16 for token in tokens)
            assert tokens[2] == "t" * 16

    @needs_ipv6
    async def test_ipv6(self) -> None:
        async with Host(listen=("::1", 0)) as host:
            seen = Recorder(host)
            port = host.address[1]
            assert host.address == ("::1", port)
            assert host.http_url("/x") == f"http://[::1]:{port}/x"
            assert host.ws_url("/x").startswith(f"ws://[::1]:{port}/x?token=")
            reader, writer = await asyncio.open_connection("::1", port)
            peer = Peer(reader, writer)
            answer = await peer.ask(request(Peer.with_token(host, "/x"), f"[::1]:{port}"))
            assert answer.status == 101
            assert (await seen.wait_for(WebSocketUpgrade)).url == "ws://dyalog_root/x"
            writer.transport.abort()


class TestTable:
    """intercepted_urls."""

    async def test_it_can_be_replaced_while_the_host_runs(self) -> None:
        host = Host([("*/a", 1)], security=ANYONE)
        seen = Recorder(host)
        async with host, opened(host, seen, "/a") as (peer, id):
            host.intercepted_urls = [("*/b", Mode.AUTO), Rule("*/c", 1)]
            assert isinstance(host.intercepted_urls, InterceptedURLs)
            assert [rule.pattern for rule in host.intercepted_urls] == ["*/b", "*/c"]
            for target, status in (("/a", 404), ("/b", 101), ("/c", 101)):
                async with Peer.connect(host) as other:
                    assert (await other.ask(ask(host, target))).status == status
            host.WebSocketSend(id, "still open")
            assert (await peer.frame()).payload == b"still open"

    async def test_bad_rows_change_nothing(self) -> None:
        host = Host([("*/a", 1)])
        with pytest.raises(InvalidRule, match="row 1"):
            host.intercepted_urls = [("*/b", 1), ("*/c", 9)]
        assert [rule.pattern for rule in host.intercepted_urls] == ["*/a"]

    async def test_an_empty_table_takes_all_of_the_root(self) -> None:
        async with Host(root="myapp", security=ANYONE) as host:
            seen = Recorder(host)
            async with opened(host, seen, "/any"):
                assert seen.of(WebSocketUpgrade)[0].url == "ws://myapp/any"
                assert seen.of(WebSocketUpgrade)[0].type == "auto"

    async def test_the_first_row_decides(self) -> None:
        host = Host([("*/a*", 0), ("*/ab", 1), ("*", 1)], security=ANYONE)
        async with host:
            for target, status in (("/ab", 404), ("/b", 101)):
                async with Peer.connect(host) as peer:
                    assert (await peer.ask(ask(host, target))).status == status

    async def test_routes_come_before_the_table_and_stay(self) -> None:
        host = Host([("*", 0)], security=ANYONE)

        @host.route("*/mine")
        async def handler(socket: Session) -> None:
            await socket.send("mine")

        host.intercepted_urls = [("*/b", 1), ("*", 0)]
        async with host, Peer.open(host, "/mine") as peer, Peer.open(host, "/b"):
            assert (await peer.frame()).payload == b"mine"
            assert [rule.pattern for rule in host.intercepted_urls] == ["*/b", "*"]


class Handler:
    """Handlers of every form; each notes that it was called."""

    def __init__(self) -> None:
        self.called: list[str] = []

    def __call__(self, event: Event) -> None:
        self.called.append("object")

    def method(self, event: Event) -> None:
        self.called.append("method")

    async def slow(self, event: Event, name: str = "slow") -> None:
        await asyncio.sleep(0)
        self.called.append(name)


class SlowHandler:
    """A callable object that is async."""

    def __init__(self, called: list[str]) -> None:
        self.called = called

    async def __call__(self, event: Event) -> None:
        await asyncio.sleep(0)
        self.called.append("slow object")


class TestHandlers:
    """on() and off()."""

    async def test_handlers_of_every_form(self) -> None:
        host = make_host()
        handler = Handler()
        for one in (
            handler,
            handler.method,
            lambda event: handler.called.append("lambda"),
            handler.slow,
            functools.partial(handler.slow, name="partial"),
            SlowHandler(handler.called),
        ):
            assert host.on(842)(one) is one
        seen = Recorder(host)
        async with host, opened(host, seen) as (peer, _):
            await peer.send(frame(TEXT, "x") * 2)
            await until(lambda: len(handler.called) == 12)
        assert handler.called == ["object", "method", "lambda", "slow", "partial", "slow object"] * 2

    @pytest.mark.parametrize("which", ["WebSocketReceive", 842, "842", WebSocketReceive])
    async def test_on_and_off_while_it_runs(self, which: Any) -> None:
        async with make_host() as host:
            seen = Recorder(host)
            async with opened(host, seen) as (peer, _):
                got: list[str | bytes] = []

                @host.on(which)
                def take(event: WebSocketReceive) -> None:
                    got.append(event.data)

                await peer.send(frame(TEXT, "1"))
                await seen.wait_for(WebSocketReceive)
                await until(lambda: got)
                host.off(which, take)
                await peer.send(frame(TEXT, "2"))
                await seen.wait_for(WebSocketReceive, 2)
        assert got == ["1"]

    async def test_all_means_all(self) -> None:
        host = make_host()
        names: list[str] = []

        @host.on("All")
        def note(event: Event) -> None:
            names.append(event.event)

        async with host, Peer.open(host) as peer:
            await peer.send(frame(TEXT, "x") + frame(3))
            await until(lambda: len(names) == 4)
            host.off("All", note)
        assert names == ["WebSocketUpgrade", "WebSocketReceive", "WebSocketError", "WebSocketClose"]

    @pytest.mark.parametrize("which", ["websocketreceive", "Receive", 839, 845, None, Event, Host, []])
    def test_unknown_events_fail_before_there_is_a_handler(self, which: Any) -> None:
        host = Host()
        with pytest.raises(UnknownEvent, match=r"HTTPRequest \(840\), WebSocketUpgrade \(841\).*'All'"):
            host.on(which)
        with pytest.raises(UnknownEvent):
            host.off(which)

    @pytest.mark.parametrize(
        "handler", [lambda: None, lambda a, b: None, lambda *, event: None, "text", None, 5, Handler.method]
    )
    def test_what_is_no_handler(self, handler: Callable[[Event], None]) -> None:
        host = Host()
        with pytest.raises(InvalidHandler):
            host.on("All")(handler)

    def test_off_of_what_was_never_on(self) -> None:
        host = Host()
        host.on(842)(print)
        which: Any
        for which, handler in ((842, repr), (843, print), ("All", None), (843, None)):
            with pytest.raises(InvalidArgument):
                host.off(which, handler)
        host.off(842, print)
        with pytest.raises(InvalidArgument):
            host.off(842, print)

    async def test_a_plain_function_that_returns_an_awaitable(self, lines: list[Line]) -> None:
        host = make_host()
        handler = Handler()
        host.on("WebSocketReceive")(lambda event: handler.slow(event))
        seen = Recorder(host)
        async with host, opened(host, seen) as (peer, id):
            await peer.send(frame(TEXT, "x") + close_frame())
            await seen.wait_for(WebSocketClose)
        (error,) = [line for line in lines if line["log_level"] == "error"]
        assert isinstance(error["exc_info"], InvalidHandler)
        assert "async def" in str(error["exc_info"])
        assert error["id"] == id

    async def test_a_manual_upgrade_without_callback(self, lines: list[Line]) -> None:
        host = make_host()
        events = host.events()
        async with host, Peer.connect(host) as peer:
            assert (await peer.ask(ask(host, "/manual"))).status == 500
            error = await asyncio.wait_for(anext(events), PATIENCE)
        assert isinstance(error, WebSocketError)
        assert 'host.on("WebSocketUpgrade")' in error.text
        assert [line for line in lines if line.get("id") == error.id]
