"""The WebSocket class of 4D: a handler with four callbacks, in asyncio or in a thread of its own.

Connecting ──► onOpen ──► onMessage, any number ──► onTerminate
     └───────────── onError, at most once ─────────────►┘
"""

from __future__ import annotations

import asyncio
import difflib
import inspect
import itertools
import json
import math
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Self, TypedDict, Unpack, cast

from .. import log
from ..dispatch import Callback, HomeLoop, LoopThread, is_async
from ..exceptions import (
    DOMException,
    InvalidArgument,
    InvalidHandler,
    InvalidState,
    SocketClosed,
    UnsupportedType,
)
from ..payload import check_close
from .address import Headers, parse_address, parse_protocols
from .inbox import Later
from .target import CloseEvent, Event, MessageEvent
from .websocket import WebSocket

__all__ = ["ConnectOptions", "HandlerError", "HandlerEvent", "WebSocketClient", "connect_handler"]

DataType = Literal["text", "blob", "object"]
Status = Literal["Connecting", "Connected", "Closing", "Closed"]

CALLBACKS = ("onOpen", "onMessage", "onError", "onTerminate")
DATA_TYPES = ("text", "blob", "object")
STATUS: tuple[Status, ...] = ("Connecting", "Connected", "Closing", "Closed")
LOST = 1006
BAD_DATA = 1007

_ids = itertools.count(1)


@dataclass(frozen=True, slots=True)
class HandlerError:
    """One error of an `onError` event.

    Attributes:
        errCode: 1006 the connection could not be opened or was lost, 1007 a message is not of the data type.
        message: what was wrong.
        componentSignature: always `interceptor`.
    """

    errCode: int
    message: str
    componentSignature: str = "interceptor"


@dataclass(frozen=True, slots=True)
class HandlerEvent:
    """What a callback is told besides the client.

    Attributes:
        type: `open`, `message`, `error` or `terminate`.
        data: of `message`, as the data type has it; else None.
        errors: of `error`; else empty.
        code: of `terminate`, the close code; else None.
        reason: of `terminate`, the server's reason; else None.
        wasClean: of `terminate`, whether it was closed in order; else None.
    """

    type: str
    data: object = None
    errors: tuple[HandlerError, ...] = ()
    code: int | None = None
    reason: str | None = None
    wasClean: bool | None = None


class ConnectOptions(TypedDict, total=False):
    """What may be said besides URL and handler; each as for `WebSocket`."""

    protocols: str | Sequence[str]
    origin: str | None
    headers: Headers
    ssl: ssl.SSLContext | None
    proxy: str | None
    open_timeout: float | None
    close_timeout: float
    ping_interval: float | None
    max_size: int | None


class WebSocketClient:
    """A client connection whose events go to a handler; made by `new`, `new_in_thread` or `connect_handler`.

    The handler is a mapping or any object with some of `onOpen`, `onMessage`, `onError`, `onTerminate`, which
    are called with (client, event), and `dataType`. Callbacks never overlap, plain or async.

    Attributes:
        id: an integer that no other client of this process has.
        url: the URL that is connected to.
        handler: as it was given.
        dataType: `text` (str), `blob` (bytes) or `object` (what JSON says).
    """

    def __init__(self, url: str, handler: object, run: Callable[..., None] | None) -> None:
        self.id = next(_ids)
        self.url = url
        self.handler = handler
        _check_members(handler)
        self.dataType = _data_type(handler)
        self._callbacks = {name: _callback(handler, name) for name in CALLBACKS}
        self._run = run
        self._socket: WebSocket | None = None
        self._thread: LoopThread | None = None
        self._turn = asyncio.Lock()
        self._done = asyncio.Event()
        self._erred = False

    @classmethod
    def new(cls, url: str, handler: object = None, **options: Unpack[ConnectOptions]) -> Self | None:
        """Begin to connect, on the running loop; the callbacks are called there.

        Args:
            url: ws, wss, http or https.
            handler: see the class.
            **options: as for `WebSocket`.

        Returns:
            The client, which is Connecting; None where the URL allows no connection (the log says why).

        Raises:
            InvalidHandler: a callback cannot be called with (client, event).
            InvalidArgument, UnsupportedType: another argument cannot be used.
            InvalidState: there is no running loop.
        """
        href = _usable(url, options)
        if href is None:
            return None
        try:
            client = cls(href, handler, HomeLoop().run)
        except RuntimeError as exc:
            raise InvalidState("there is no running loop; use WebSocketClient.new_in_thread") from exc
        client._start(options)
        return client

    @classmethod
    def new_in_thread(
        cls, url: str, handler: object = None, **options: Unpack[ConnectOptions]
    ) -> Self | None:
        """Begin to connect, in a thread of the client's own; the callbacks are called there.

        For programs without asyncio. The thread ends after `onTerminate`; it does not keep the program alive.
        Arguments, result and exceptions are those of `new`.
        """
        href = _usable(url, options)
        if href is None:
            return None
        client = cls(href, handler, None)
        thread = client._thread = LoopThread(f"interceptor client {client.id}")

        async def start() -> None:
            client._run = HomeLoop().run
            client._start(options)

        thread.start()
        try:
            thread.run(start())
        except BaseException:
            thread.stop()
            raise
        return client

    def _start(self, options: ConnectOptions) -> None:
        socket = WebSocket(self.url, **options)
        socket.binaryType = "arraybuffer"
        socket.onopen = self._opened
        socket.onmessage = self._received
        socket.onerror = self._failed
        socket.onclose = self._ended
        self._socket = socket

    def __repr__(self) -> str:
        return f"<WebSocketClient {self.id} {self.status}>"

    # For the program; callable from any thread.

    @property
    def status(self) -> Status:
        """Connecting, Connected, Closing or Closed."""
        return STATUS[0 if self._socket is None else self._socket.readyState]

    def send(self, message: object) -> None:
        """Send a message as the data type has it; dropped once the connection is closing.

        Args:
            message: str for `text`, bytes-like for `blob`, what JSON can say for `object`.

        Raises:
            InvalidState: the client is still Connecting.
            UnsupportedType: the message is not of the data type.
        """
        data = _encode(message, self.dataType)
        if self.status == "Connecting":
            raise InvalidState("the client is still Connecting; send from onOpen on")
        self._on_loop(self._send, data)

    def terminate(self, code: int = 1000, reason: str = "") -> None:
        """Close the connection after what was sent; without effect if it is closing.

        Args:
            code: 1000, or 3000 to 4999.
            reason: at most 123 bytes of UTF-8.

        Raises:
            InvalidArgument, UnsupportedType: the code or the reason cannot be used.
        """
        check_close(code, reason)
        self._on_loop(self._terminate, code, reason)

    def join(self, timeout: float | None = None) -> bool:
        """Wait until `onTerminate` has returned and the client's thread has ended.

        Args:
            timeout: most seconds to wait; None waits as long as it takes.

        Returns:
            Whether it has ended.

        Raises:
            InvalidState: the client has no thread of its own, or this is that thread.
        """
        if self._thread is None:
            raise InvalidState("this client has no thread of its own; use `await client.terminated`")
        return self._thread.join(math.inf if timeout is None else timeout)

    @property
    def terminated(self) -> Awaitable[None]:
        """Await it, on the client's loop, until `onTerminate` has returned."""
        return Later(self._until_terminated)

    async def _until_terminated(self) -> None:
        await self._done.wait()

    async def _until_open(self) -> bool:
        assert self._socket is not None
        try:
            await self._socket.opened
        except SocketClosed:
            await self._done.wait()
            return False
        return True

    def _on_loop(self, function: Callable[..., None], *args: object) -> None:
        assert self._run is not None
        try:
            self._run(function, *args)
        except InvalidState:
            if self.status != "Closed":  # A client that is over takes nothing, and nobody minds.
                raise

    def _send(self, data: str | bytes) -> None:
        assert self._socket is not None
        self._socket.send(data)

    def _terminate(self, code: int, reason: str) -> None:
        assert self._socket is not None
        if self.status == "Connecting":
            self._erred = True  # What the program wants is no error.
        self._socket.close(code, reason)

    # The socket's listeners. One at a time: the lock gives the turns in the order of the asking.

    async def _opened(self, event: Event) -> None:
        async with self._turn:
            await self._call("onOpen", HandlerEvent("open"))

    async def _received(self, event: MessageEvent) -> None:
        assert isinstance(event.data, str | bytes)
        async with self._turn:
            try:
                data = _decode(event.data, self.dataType)
            except ValueError as exc:
                await self._fail(BAD_DATA, f"a message is no {self.dataType}: {exc}")
            else:
                await self._call("onMessage", HandlerEvent("message", data=data))

    async def _failed(self, event: Event) -> None:
        assert self._socket is not None
        diagnosis = self._socket.diagnosis
        async with self._turn:
            await self._fail(LOST, "" if diagnosis is None else diagnosis.reason)

    async def _ended(self, event: CloseEvent) -> None:
        async with self._turn:
            end = HandlerEvent("terminate", code=event.code, reason=event.reason, wasClean=event.wasClean)
            await self._call("onTerminate", end)
        self._done.set()
        if self._thread is not None:
            self._thread.stop_soon()

    async def _fail(self, code: int, message: str) -> None:
        log.get_logger(id=self.id).debug("client error", code=code, message=message)
        if not self._erred:
            self._erred = True
            await self._call("onError", HandlerEvent("error", errors=(HandlerError(code, message),)))

    async def _call(self, name: str, event: HandlerEvent) -> None:
        callback = self._callbacks[name]
        if callback is None:
            return
        try:
            result = callback.handler(self, event)
            if callback.is_async:
                await cast(Awaitable[object], result)
        except Exception:
            log.get_logger(id=self.id).error("a callback failed", callback=name, exc_info=True)


async def connect_handler(
    url: str, handler: object = None, **options: Unpack[ConnectOptions]
) -> WebSocketClient | None:
    """Connect, and wait until the connection is open.

    Args:
        url: ws, wss, http or https.
        handler: see `WebSocketClient`.
        **options: as for `WebSocket`.

    Returns:
        The client, or None where the connection could not be opened; `onTerminate` was called then, unless
        the URL allows no connection at all.

    Raises:
        InvalidHandler, InvalidArgument, UnsupportedType: an argument cannot be used.
    """
    client = WebSocketClient.new(url, handler, **options)
    return client if client is not None and await client._until_open() else None


def _usable(url: str, options: ConnectOptions) -> str | None:
    try:
        parse_protocols(options.get("protocols", ()))
        return parse_address(url).href
    except DOMException as exc:
        log.get_logger().warning("no connection is possible", why=exc.message)
        return None


def _check_members(handler: object) -> None:
    """Check that a handler is one, and no name in it a slip of the pen; other names are its own."""
    names = (*CALLBACKS, "dataType")
    if isinstance(handler, Mapping):
        for key in handler:
            close = difflib.get_close_matches(str(key), names, 1, 0.8)
            if key not in names and close:
                raise InvalidHandler(f"the handler has {key!r}; did you mean {close[0]}?")
    elif handler is not None and not any(hasattr(handler, name) for name in names):
        raise InvalidHandler(f"the handler is {handler!r}; it has some of {', '.join(names)}")


def _member(handler: object, name: str) -> object:
    return handler.get(name) if isinstance(handler, Mapping) else getattr(handler, name, None)


def _data_type(handler: object) -> DataType:
    value = _member(handler, "dataType")
    if value is None:
        return "text"
    if value not in DATA_TYPES:
        raise InvalidArgument(f"dataType is {value!r}; it is 'text', 'blob' or 'object'")
    return cast(DataType, value)


def _callback(handler: object, name: str) -> Callback | None:
    callback = _member(handler, name)
    if callback is None:
        return None
    if not callable(callback):
        raise InvalidHandler(f"{name} is {callback!r}; it is called with (client, event)")
    try:
        inspect.signature(callback).bind(None, None)
    except TypeError:
        raise InvalidHandler(f"{name} cannot be called with (client, event)") from None
    except ValueError:  # It does not tell.
        pass
    return Callback(callback, is_async(callback))


def _encode(message: object, kind: DataType) -> str | bytes:
    if kind == "object":
        try:
            return json.dumps(message, ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as exc:
            raise UnsupportedType(f"the message cannot be JSON: {exc}") from exc
    if kind == "text" and isinstance(message, str):
        return message
    if kind == "blob" and isinstance(message, bytes | bytearray | memoryview):
        return bytes(message)
    wanted = "str" if kind == "text" else "bytes-like"
    raise UnsupportedType(f"dataType is {kind!r}, so a message is {wanted}, not {type(message).__name__}")


def _decode(data: str | bytes, kind: DataType) -> object:
    """Return what came as the data type has it, whichever kind of message it came in."""
    if kind == "blob":
        return data if isinstance(data, bytes) else data.encode()
    text = data if isinstance(data, str) else data.decode("utf-8")
    if kind == "text":
        return text
    try:
        return json.loads(text, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _refuse(constant: str) -> object:
    raise ValueError(f"{constant} is no JSON")
