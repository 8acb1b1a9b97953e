"""The host: the program's side of the WebSockets that pages open."""

from __future__ import annotations

import asyncio
import enum
import os
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Never, Self, TypeVar, cast

from . import log
from .callbacks import Callbacks, UpgradeAnswer
from .config import Limits, Security, Settings, Timeouts, Tls
from .dispatch import Dispatcher, LoopFactory, Post, check_handler, is_async
from .events import AnyEvent, HTTPRequest, WebSocketError, WebSocketUpgrade
from .exceptions import (
    InvalidArgument,
    InvalidHandler,
    InvalidRule,
    InvalidState,
    UnknownSocket,
    UnsupportedType,
)
from .gui import check_post
from .patterns import InterceptedURLs, Mode, Pattern, Row, Rule
from .payload import Data, check_close
from .session import Session
from .sessions import Sessions
from .threaded import ThreadedHost
from .upstream import read_upstream
from .ways.dial import Dialer
from .ways.direct import Direct
from .ways.door import Door, ProxyWay, ways_in
from .ways.files import Files
from .ways.guard import Guard
from .ways.listener import Listener, check_listen
from .ways.pages import Pages
from .ways.proxy import Proxy
from .ways.reachable import Reachable
from .ways.reception import Reception
from .ways.tls import Ends
from .ways.web import Web

if TYPE_CHECKING:
    from ssl import SSLContext

    from .doctor import Browser, Diagnosis

__all__ = ["Host"]

RouteT = TypeVar("RouteT", bound=Callable[[Session], Awaitable[object]])

GRACE = 1.0
"""Seconds for which stop() lets clients close their TCP connections after the WebSockets have ended."""


START = "write `async with host:`, or `with host.in_thread():` in a program without asyncio"


class Phase(enum.Enum):
    """Where a host stands."""

    NEW = "not started"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"


class Host(Callbacks, Reachable):
    """Answers the WebSockets of pages whose URL matches a rule.

    Args:
        intercepted_urls: rows (pattern, mode); the first that matches decides. None at all acts as
            `("*://<root>/*", 1)`.
        root: the name by which the host's own address is known in rules and events.
        name: the host's name in event vectors.
        listen: address and port; port 0 lets the system choose.
        ui: folder whose files are served at the root; needs Werkzeug.
        shim: put the script of `shim_js` first into the pages that the host serves at its own address.
        subprotocols: for automatic handshakes, the best first; a rule's own come before them.
        compression: agree to permessage-deflate.
        chunks: report each data frame as it arrives instead of whole messages.
        proxy: be a proxy as well, for browsers that are told to use one; never with
            `Security(allow_remote=True)`. A collection names the ways that are open: `connect` (tunnels),
            `absolute` (requests for whole URLs), `socks5`.
        direct: take requests, and TLS, that are made to the host itself.
        upstream_proxy: `http://[user:password@]host:port`, another proxy (CONNECT) by which all goes on that
            no rule matches.
        post: runs a function soon on the program's own thread, where plain callbacks are then called; such as
            `interceptor.gui.qt.post`. None calls them where the host runs, or in `dq()`.
        limits: how much the host takes.
        timeouts: how long it waits.
        security: who may connect.
        tls: its certificates, and whom it believes.

    Raises:
        InvalidRule: a row cannot be used; names it.
        InvalidArgument: another argument cannot be used.
    """

    def __init__(
        self,
        intercepted_urls: Iterable[Row] = (),
        *,
        root: str = "dyalog_root",
        name: str = "host",
        listen: tuple[str, int] = ("127.0.0.1", 0),
        ui: str | os.PathLike[str] | None = None,
        shim: bool = True,
        subprotocols: Sequence[str] = (),
        compression: bool = True,
        chunks: bool = False,
        proxy: bool | Collection[ProxyWay] = True,
        direct: bool = True,
        upstream_proxy: str | None = None,
        post: Post | None = None,
        limits: Limits = Limits(),  # noqa: B008  # frozen values
        timeouts: Timeouts = Timeouts(),  # noqa: B008
        security: Security = Security(),  # noqa: B008
        tls: Tls = Tls(),  # noqa: B008
    ) -> None:
        for value, kind in ((limits, Limits), (timeouts, Timeouts), (security, Security), (tls, Tls)):
            if not isinstance(value, kind):
                raise UnsupportedType(f"{value!r} is no {kind.__name__}; write {kind.__name__}(...)")
        check_post(post)
        if ":" in root:
            raise InvalidArgument(f"root {root!r} is no name; a root has no port, such as 'myapp'")
        self.name = name
        self._rows = InterceptedURLs(intercepted_urls, root)
        self._listen = check_listen(listen, security)
        subprotocols = Rule("*", subprotocols=subprotocols).subprotocols
        settings = Settings(subprotocols, compression, chunks, limits, timeouts, security)
        self._routes: list[Rule] = []
        self._dispatcher = Dispatcher(post)
        self._sessions = Sessions(self, settings, self._dispatcher, self._rows)
        self._guard = Guard(security, self._rows.root)
        reception = Reception(self._sessions, self._guard)
        self._ways = ways_in(proxy, direct, security)
        self._tls = tls
        self._ends = Ends(tls, timeouts, self._sessions.complaints)
        upstream = None if upstream_proxy is None else read_upstream(upstream_proxy, "upstream_proxy")
        dialer = Dialer(self._guard, timeouts, tls, upstream, self._sessions.complaints)
        self._files = None if ui is None else Files(ui, security.csp)
        web = Web(self._sessions, self._guard, reception, self._files, shim)
        self._proxy = Proxy(self._sessions, self._guard, reception, web, dialer, self._ends, self._track)
        pages = Pages(self._guard, self._page_shim, self.pac if self._is_proxy else None)
        own = Direct(self._sessions, self._guard, reception, web, pages)
        door = Door(own, self._proxy, self._ends, self._ways)
        self._listener = Listener(door, limits, timeouts)
        self._phase = Phase.NEW
        self._stopping: asyncio.Task[None] | None = None
        self._threaded: ThreadedHost[Self] | None = None
        self._address = ("", 0)

    def __repr__(self) -> str:
        return f"<Host {self.name!r} {self._phase.value}>"

    # Life.

    async def start(self) -> None:
        """Listen, on the running loop.

        Raises:
            InvalidState: the host was started before, or the address cannot be had.
        """
        if self._phase is not Phase.NEW:
            raise InvalidState(f"the host is {self._phase.value}; a Host is started once, make another")
        self._phase = Phase.RUNNING
        self._dispatcher.bind()
        try:
            addresses = await self._listener.start(*self._listen)
        except OSError as exc:
            self._phase = Phase.NEW
            raise InvalidState(f"cannot listen on {self._listen}: {exc}; port 0 takes any free one") from exc
        self._address = addresses[0]
        hosts, localhost = [host for host, _ in addresses], self._listener.holds_localhost
        self._guard.bind(hosts, self._address[1], localhost=localhost)
        self._warn_of_manual_rows()
        self._warn_of_no_page_rows()

    def stop(self) -> Awaitable[None]:
        """Close every socket with 1001, wait at most `Timeouts.close`, and leave nothing behind.

        Events that are left are delivered first. A second call waits for the first one. An async callback may
        call this: it is not waited for. In a program without asyncio (`in_thread`) the call itself waits, and
        there is nothing to await.

        Raises:
            InvalidState: called where it would wait for itself, on another event loop than the host's, or in
                a program without asyncio before `in_thread`.
        """
        if self._phase is Phase.NEW and self._threaded is None and not _in_task():
            raise InvalidState(f"the host is not started, so there is nothing to stop; {START}")
        stopping = self._stop()
        if self._threaded is None or (self._dispatcher.is_here and _in_task()):
            return stopping
        stopping.close()
        self._threaded.stop()
        return stopping

    def stop_soon(self) -> None:
        """Begin to stop, and return at once; from any thread, also in a callback.

        Raises:
            InvalidState: the host is not running.
        """
        if self._phase in (Phase.STOPPING, Phase.STOPPED):
            return
        self._dispatcher.run(self._begin_to_stop)

    async def _stop(self) -> None:
        if self._phase is Phase.NEW:
            self._phase = Phase.STOPPED
        if self._phase is Phase.STOPPED:
            return
        self._dispatcher.check_loop("stop()")
        self._dispatcher.excuse(asyncio.current_task())
        # Whoever waits for it may be cancelled; the work goes on.
        await asyncio.shield(self._begin_to_stop())

    def _begin_to_stop(self) -> asyncio.Task[None]:
        if self._stopping is None:
            self._phase = Phase.STOPPING
            self._stopping = asyncio.Task(self._shut_down(), loop=self._dispatcher.loop)
        return self._stopping

    async def _shut_down(self) -> None:
        loop = self._dispatcher.loop
        deadline = loop.time() + self._sessions.settings.timeouts.close
        await self._listener.close()
        self._proxy.close()
        await self._sessions.end_all(deadline)
        await self._listener.wait_empty(min(GRACE, max(0, deadline - loop.time())))
        await self._dispatcher.drain(deadline)
        self._phase = Phase.STOPPED
        self._dispatcher.end()

    def _track(self, transport: asyncio.Transport) -> Callable[[], None]:
        if not self._listener.made(transport):
            transport.abort()
        return lambda: self._listener.lost(transport)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    if not TYPE_CHECKING:  # Type checkers refuse `with host:` by themselves.

        def __enter__(self) -> Never:
            raise InvalidState(f"`with host:` starts nothing; {START}")

        def __exit__(self, *exc_info: object) -> None:
            """Without it Python would not come to __enter__."""

    # In a program without asyncio.

    def in_thread(self, *, dq: bool = False, loop_factory: LoopFactory | None = None) -> ThreadedHost[Self]:
        """Return what runs the host in a thread of its own: `with host.in_thread():`.

        Every method may be called from every thread then. Plain callbacks run on the host's thread, or where
        `post` takes them; from the first `dq()` on they run there.

        Args:
            dq: have callbacks wait for `dq()` from the start.
            loop_factory: makes the event loop, such as `uvloop.new_event_loop`; None is asyncio's own.

        Raises:
            InvalidState: the host was started before, or has a `post` and `dq` is asked for.
        """
        if self._phase is not Phase.NEW:
            raise InvalidState(f"the host is {self._phase.value}; a Host is started once, make another")
        settings = self._sessions.settings
        self._dispatcher.expect_dq(settings.limits.read_buffer, at_once=dq)
        self._threaded = ThreadedHost(self, self._dispatcher, settings.timeouts.close, loop_factory)
        return self._threaded

    def dq(self, timeout: float | None = None) -> AnyEvent | None:
        """Run callbacks in the calling thread, and return the first event that has none.

        Plain callbacks run here and nowhere else from the first call on; what comes between two calls waits
        for the next one. Async ones run on the host's own thread.

        Args:
            timeout: seconds after which to return without an event; 0 only runs what waits already, None
                waits until an event comes or the host stops.

        Returns:
            An event without a callback; None when the time is over or the host has stopped.

        Raises:
            InvalidArgument: the timeout is no number of seconds.
            InvalidState: the host was not started, or has stopped and an earlier call has said so; or this is
                no place to wait: a callback, the host's own thread, a second thread at once; or the host was
                made with `post`.
        """
        if timeout is not None and (not isinstance(timeout, int | float) or not timeout >= 0):
            raise InvalidArgument(f"timeout is {timeout!r}; it is seconds, 0 or more, or None")
        if self._phase is Phase.NEW:
            raise InvalidState("the host is not started; use dq() inside of `with host.in_thread():`")
        if self._phase is Phase.STOPPED and self._dispatcher.end_told:
            raise InvalidState("the host is stopped and nothing comes: leave the loop when dq() is None")
        return cast("AnyEvent | None", self._dispatcher.dq(timeout))

    @property
    def is_running(self) -> bool:
        """Whether the host was started and has not begun to stop; for loops around `dq(timeout)`."""
        return self._phase is Phase.RUNNING

    # Where it is; its URLs, and what browsers are told, are in Reachable.

    @property
    def address(self) -> tuple[str, int]:
        """The address that the host listens on.

        Raises:
            InvalidState: the host is not running.
        """
        if self._phase is not Phase.RUNNING:
            remedy = "use `async with host:`, or `with host.in_thread():`"
            if self._phase is not Phase.NEW:
                remedy = "a Host runs once, make another"
            raise InvalidState(f"the host is {self._phase.value}, it has no address; {remedy}")
        return self._address

    async def doctor(
        self, browser: Browser = "chromium", *, say: Callable[[str], None] = lambda line: None
    ) -> Diagnosis:
        """Start a browser of this machine, by each way in that it knows, and see where its sockets come out.

        It is tried with a second host that has this one's ways in and TLS, so no event comes here.

        Args:
            browser: `chromium`, `firefox` or `qt`.
            say: is told what is being tried; it takes some seconds.

        Returns:
            What was found; as a str it is a table, and what is wrong and how to mend it in plain words.

        Raises:
            InvalidArgument: there is no such browser.
            InvalidState: the browser is not installed.
        """
        from .doctor import diagnose  # Nobody needs it in a running program.

        def make(rows: Iterable[Row], origin: str) -> tuple[Host, SSLContext]:
            ways = [way for way in self._ways if way != "direct"]
            trusting = Security(origins=[origin])
            probe = Host(rows, security=trusting, proxy=ways, direct="direct" in self._ways, tls=self._tls)
            return probe, probe._ends.authority.context("localhost")

        return await diagnose(make, browser, say)

    # Rules.

    @property
    def intercepted_urls(self) -> InterceptedURLs:
        """The table of rules, without the routes, which come before it. Assign rows to replace it.

        Open sockets are not affected.
        """
        return self._rows

    @intercepted_urls.setter
    def intercepted_urls(self, rows: Iterable[Row]) -> None:
        table = InterceptedURLs(rows, self._rows.root)
        with self._dispatcher.changing:
            self._rows = table
            self._compile()

    def route(
        self,
        pattern: Pattern,
        *,
        mode: Literal[Mode.AUTO, Mode.MANUAL, 1, 2] = Mode.AUTO,
        subprotocols: Sequence[str] = (),
        chunks: bool | None = None,
    ) -> Callable[[RouteT], RouteT]:
        """Add a rule, before the table's, with an async handler that lives as long as the socket.

        The handler takes the socket (a Session). When it returns the socket is closed with 1000, when it
        raises with 1011. The messages go to it by `async for message in socket`.

        Raises:
            InvalidRule: the pattern or mode cannot be used; Mode.PASS would never come to the handler.
            InvalidHandler: the handler is not an `async def` of one argument.
        """
        rule = Rule(pattern, mode, subprotocols=subprotocols, chunks=chunks)
        if rule.mode is Mode.PASS:
            raise InvalidRule("a route with mode 0 (pass) never runs its handler; use 1 (auto) or 2 (manual)")

        def register(handler: RouteT) -> RouteT:
            check_handler(handler, "socket")
            if not is_async(handler):
                raise InvalidHandler(
                    f"{handler!r} is not async; a route's handler is `async def handler(socket)`"
                )
            with self._dispatcher.changing:
                self._routes.append(replace(rule, handler=handler))
                self._compile()
            return handler

        return register

    def _compile(self) -> None:
        self._sessions.table = (
            InterceptedURLs([*self._routes, *self._rows], self._rows.root) if self._routes else self._rows
        )

    def _warn_of_manual_rows(self) -> None:
        rows = [row for scheme in ("ws", "wss") for row in self._sessions.table.texts(scheme)]
        manual = [text or "(no string)" for text, mode in rows if mode is Mode.MANUAL]
        if manual and not self._dispatcher.callbacks[WebSocketUpgrade]:
            log.get_logger().warning(
                "a manual rule needs a WebSocketUpgrade callback, and there is none yet; "
                'register one with host.on("WebSocketUpgrade")',
                pattern=manual[0],
            )

    def _warn_of_no_page_rows(self) -> None:
        callbacks, table = self._dispatcher.callbacks, self._sessions.table
        # Who registered for "All" is among those of every event.
        for_pages = [one for one in callbacks[HTTPRequest] if one not in callbacks[WebSocketError]]
        rows = [row for scheme in ("http", "https") for row in table.texts(scheme)]
        if for_pages and self._files is None and all(mode is Mode.PASS for _, mode in rows):
            log.get_logger().warning(
                "a callback for HTTPRequest needs a rule for http, and there is none yet; "
                f'add one such as ("*://{table.root}/*", 1) or ("http://{table.root}/*", 1)'
            )

    # Sockets.

    @property
    def sockets(self) -> Mapping[str, Session]:
        """The open sockets by ID; each until its WebSocketClose has been reported."""
        return self._sessions.open

    def WebSocketSend(
        self, id: str, data: Data, fin: bool = True, opcode: Literal[0, 1, 2] | None = None
    ) -> int:
        """Send a message, or a piece of one; never blocks, callable from any thread.

        What the peer will not read any more is dropped: it closed or was lost, and WebSocketClose follows.

        Args:
            id: of an open socket.
            data: str goes as text; bytes-like and sequences of integers -128..255 go as binary.
            fin: False if more pieces of this message follow.
            opcode: 1 text or 2 binary, whatever the type; 0, as HTMLRenderer has it for all but the last
                piece, means what the type, or the message that was begun, says.

        Returns:
            0.

        Raises:
            UnknownSocket: the ID is not open.
            InvalidArgument, UnsupportedType: the data cannot be sent.
        """
        self._sessions.find(id).send_soon(data, fin, opcode)
        return 0

    def WebSocketClose(self, id: str, code: int = 1000, reason: str = "") -> int:
        """Start the closing handshake after what was sent; never blocks, callable from any thread.

        Args:
            id: of an open socket.
            code: 1000, or 3000 to 4999.
            reason: at most 123 bytes of UTF-8.

        Returns:
            0.

        Raises:
            UnknownSocket: the ID is not open.
            InvalidArgument: the code or the reason cannot be used.
        """
        check_close(code, reason)
        session = self._sessions.find(id)
        session.give_up()
        self._dispatcher.run(session.close_soon, code, reason)
        return 0

    def answer(self, id: str, message: UpgradeAnswer) -> int:
        """Answer a manual upgrade whose callback returned None; callable from any thread.

        After a 101 the ID may be used at once: what is sent by it goes out after the answer. If the client
        has left meanwhile it is dropped, and WebSocketError follows.

        Args:
            id: of the upgrade.
            message: the event with Headers replaced, or its vector.

        Returns:
            0.

        Raises:
            UnknownSocket: no upgrade with this ID waits for an answer.
        """
        if message is None:
            raise UnsupportedType("None is no answer; use event.accept(), event.deny() or event.answer(text)")
        session = self._sessions.pending.get(id) if isinstance(id, str) else None
        if session is None or not session.answer(message):
            raise UnknownSocket(id, "no upgrade with this ID waits for an answer (any more)")
        return 0

    def broadcast(self, ids: Iterable[str], data: Data) -> int:
        """Send one message to the sockets of these IDs that are open; return how many they are.

        The message is checked, framed and compressed once for all of them. To a socket that is amid a message
        in pieces it goes after the last of them, and counts as unsent (`Limits.write_buffer`) until then.
        Callable from any thread.

        Raises:
            InvalidArgument, UnsupportedType: the data cannot be sent.
        """
        if isinstance(ids, str):
            raise UnsupportedType("broadcast takes a list of IDs, not a single one")
        return self._sessions.broadcast(ids, data)


def _in_task() -> bool:
    """Whether the caller can await something."""
    try:
        return asyncio.current_task() is not None
    except RuntimeError:
        return False
