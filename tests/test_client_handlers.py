"""The 4D class: callbacks, their order, data types, codes; on a loop and in a thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from types import SimpleNamespace

import pytest
import pytest_asyncio

from interceptor import InvalidArgument, InvalidHandler, InvalidState, UnsupportedType
from interceptor.client import HandlerEvent, WebSocketClient, connect_handler

from .peer import BINARY, PATIENCE, TEXT, until
from .served import Served, Site
from .wire import BOTH_LOOPS, Line, lines, quiet_loop

__all__ = ["lines", "quiet_loop"]

pytestmark = BOTH_LOOPS

Told = list[tuple[object, ...]]


def told(event: HandlerEvent) -> tuple[object, ...]:
    match event.type:
        case "message":
            return ("message", event.data)
        case "error":
            return ("error", *(error.errCode for error in event.errors))
        case "terminate":
            return ("terminate", event.code, event.reason, event.wasClean)
    return (event.type,)


def handler(told_so_far: Told, **more: object) -> dict[str, object]:
    def note(client: WebSocketClient, event: HandlerEvent) -> None:
        told_so_far.append(told(event))

    return {"onOpen": note, "onMessage": note, "onError": note, "onTerminate": note, **more}


@pytest_asyncio.fixture
async def site() -> AsyncIterator[Site]:
    async with Site.serving() as site:
        yield site


async def terminated(client: WebSocketClient) -> None:
    async with asyncio.timeout(PATIENCE):
        await client.terminated


async def finish(served: Served, code: int | None = 1000) -> None:
    """Answer the client's close, and end."""
    assert await served.close_code() == code
    await served.send(served.close_frame(code))
    await served.end()


async def opened(site: Site, seen: Told, **more: object) -> tuple[WebSocketClient, Served]:
    client = WebSocketClient.new(site.url, handler(seen, **more))
    assert client is not None
    served = await site.accept()
    await served.switch()
    await until(lambda: client.status == "Connected")
    return client, served


async def test_the_life_of_a_client(site: Site) -> None:
    seen: Told = []
    given = handler(seen)
    client = WebSocketClient.new(site.url, given)
    assert client is not None
    assert (client.status, client.url, client.dataType) == ("Connecting", site.url, "text")
    assert client.handler is given
    served = await site.accept()
    await served.switch(after=served.frame(TEXT, "hello"))
    await until(lambda: len(seen) == 2)
    assert repr(client) == f"<WebSocketClient {client.id} Connected>"
    client.send("Grüße")
    frame = await served.receive()
    assert (frame.opcode, frame.payload) == (TEXT, "Grüße".encode())
    client.terminate()
    await until(lambda: client.status == "Closing")
    await finish(served)
    await terminated(client)
    assert client.status == "Closed"
    assert seen == [("open",), ("message", "hello"), ("terminate", 1000, "", True)]
    client.send("dropped")
    client.terminate()


async def test_ids_are_unique_integers(site: Site) -> None:
    clients = [WebSocketClient.new(site.url) for _ in range(3)]
    ids = [client.id for client in clients if client is not None]
    assert len(set(ids)) == 3
    assert all(isinstance(id, int) for id in ids)
    for client in clients:
        assert client is not None
        client.terminate()
        await terminated(client)


@pytest.mark.parametrize("url", ["", "nowhere", "ftp://e/", "ws://e/#x"])
async def test_a_url_that_allows_no_connection_gives_none(url: str, lines: list[Line]) -> None:
    seen: Told = []
    assert WebSocketClient.new(url, handler(seen)) is None
    assert WebSocketClient.new_in_thread(url, handler(seen)) is None
    assert await connect_handler(url, handler(seen)) is None
    assert seen == []
    assert [line["event"] for line in lines] == ["no connection is possible"] * 3


async def test_a_failed_handshake_is_one_error_then_the_end(site: Site) -> None:
    seen: Told = []
    errors: list[str] = []
    given = handler(seen)
    client = WebSocketClient.new(
        site.url, {**given, "onError": lambda client, event: errors.append(event.errors[0].message)}
    )
    served = await site.accept()
    await served.send(b"HTTP/1.1 403 No\r\n\r\n")
    assert client is not None
    await terminated(client)
    assert seen == [("terminate", 1006, "", False)]
    assert errors == ["status 403; only 101 opens a WebSocket"]


async def test_a_lost_connection_is_one_error_then_the_end(site: Site) -> None:
    seen: Told = []
    client, served = await opened(site, seen)
    served.writer.transport.abort()
    await terminated(client)
    assert seen == [("open",), ("error", 1006), ("terminate", 1006, "", False)]


async def test_the_servers_end_is_reported_with_its_code(site: Site) -> None:
    seen: Told = []
    client, served = await opened(site, seen)
    await served.send(served.close_frame(4002, "go"))
    await served.close_code()
    await served.end()
    await terminated(client)
    assert seen == [("open",), ("terminate", 4002, "go", True)]


async def test_terminate_before_it_is_open_is_no_error(site: Site) -> None:
    seen: Told = []
    client = WebSocketClient.new(site.url, handler(seen))
    assert client is not None
    await site.accept()
    client.terminate()
    await terminated(client)
    assert seen == [("terminate", 1006, "", False)]


# Data types

RECEIVED: list[tuple[str, int, bytes, object]] = [
    ("text", TEXT, b"a", "a"),
    ("text", BINARY, "ü".encode(), "ü"),
    ("blob", BINARY, b"\0", b"\0"),
    ("blob", TEXT, "ü".encode(), "ü".encode()),
    ("object", TEXT, b'{"a": [1, null]}', {"a": [1, None]}),
    ("object", BINARY, b"3", 3),
]


@pytest.mark.parametrize(("kind", "opcode", "payload", "data"), RECEIVED)
async def test_a_message_comes_as_the_data_type(
    site: Site, kind: str, opcode: int, payload: bytes, data: object
) -> None:
    seen: Told = []
    client, served = await opened(site, seen, dataType=kind)
    await served.send(served.frame(opcode, payload))
    await until(lambda: len(seen) == 2)
    assert seen == [("open",), ("message", data)]
    client.terminate()


@pytest.mark.parametrize(
    ("kind", "opcode", "payload"),
    [
        ("text", BINARY, b"\xff"),
        ("object", TEXT, b"{"),
        ("object", TEXT, b""),
        ("object", TEXT, b"NaN"),
        ("object", BINARY, b"\xff"),
        ("object", TEXT, b"[" * 100_000),
    ],
)
async def test_a_message_that_does_not_parse_is_an_error_once_and_no_end(
    site: Site, kind: str, opcode: int, payload: bytes
) -> None:
    seen: Told = []
    client, served = await opened(site, seen, dataType=kind)
    bad, good = served.frame(opcode, payload), served.frame(TEXT, "1")
    await served.send(bad, bad, good)
    await until(lambda: len(seen) == 3)
    assert seen == [("open",), ("error", 1007), ("message", 1 if kind == "object" else "1")]
    served.writer.transport.abort()
    await terminated(client)
    assert seen[3:] == [("terminate", 1006, "", False)]  # No second error.


@pytest.mark.parametrize(
    ("kind", "message", "opcode", "payload"),
    [
        ("text", "ü", TEXT, "ü".encode()),
        ("blob", b"\0", BINARY, b"\0"),
        ("blob", bytearray(b"a"), BINARY, b"a"),
        ("object", {"ü": [1, None]}, TEXT, '{"ü": [1, null]}'.encode()),
    ],
)
async def test_a_message_is_sent_as_the_data_type(
    site: Site, kind: str, message: object, opcode: int, payload: bytes
) -> None:
    client, served = await opened(site, [], dataType=kind)
    client.send(message)
    frame = await served.receive()
    assert (frame.opcode, frame.payload) == (opcode, payload)
    client.terminate()


@pytest.mark.parametrize(
    ("kind", "message"), [("text", b"x"), ("blob", "x"), ("object", object()), ("object", float("nan"))]
)
async def test_a_message_of_another_type_is_refused(site: Site, kind: str, message: object) -> None:
    client, _ = await opened(site, [], dataType=kind)
    with pytest.raises(UnsupportedType):
        client.send(message)
    client.terminate()


async def test_sending_before_it_is_open_is_refused(site: Site) -> None:
    client = WebSocketClient.new(site.url)
    assert client is not None
    with pytest.raises(InvalidState, match="Connecting"):
        client.send("x")
    client.terminate()
    await terminated(client)


# terminate()


@pytest.mark.parametrize("code", [1000, 3000, 4999])
async def test_terminate_takes_1000_and_3000_to_4999(site: Site, code: int) -> None:
    seen: Told = []
    client, served = await opened(site, seen)
    client.terminate(code, "why")
    await finish(served, code)
    await terminated(client)
    assert seen[-1] == ("terminate", code, "", True)


@pytest.mark.parametrize(
    ("code", "reason"), [(999, ""), (1001, ""), (2999, ""), (5000, ""), (1000, "x" * 124)]
)
async def test_terminate_refuses_other_codes_and_long_reasons(site: Site, code: int, reason: str) -> None:
    client, _ = await opened(site, [])
    with pytest.raises(InvalidArgument):
        client.terminate(code, reason)
    assert client.status == "Connected"
    client.terminate()


# Handlers


async def test_an_object_may_be_the_handler(site: Site) -> None:
    class Chat:
        dataType = "blob"

        def __init__(self) -> None:
            self.seen: list[object] = []

        def onMessage(self, client: WebSocketClient, event: HandlerEvent) -> None:
            self.seen.append(event.data)

    chat = Chat()
    client = await asyncio.gather(connect_handler(site.url, chat), answer(site, b"x"))
    assert client[0] is not None
    assert client[0].dataType == "blob"
    await until(lambda: chat.seen)
    assert chat.seen == [b"x"]
    client[0].terminate()


async def answer(site: Site, data: bytes) -> None:
    served = await site.accept()
    await served.switch(after=served.frame(BINARY, data))


async def test_connect_handler_gives_none_where_it_fails(site: Site) -> None:
    seen: Told = []

    async def refuse() -> None:
        await (await site.accept()).send(b"HTTP/1.1 404 No\r\n\r\n")

    async def slow(client: WebSocketClient, event: HandlerEvent) -> None:
        for _ in range(10):
            await asyncio.sleep(0)
        seen.append(told(event))

    client, _ = await asyncio.gather(connect_handler(site.url, handler(seen, onTerminate=slow)), refuse())
    assert client is None
    assert seen == [("error", 1006), ("terminate", 1006, "", False)]


async def test_async_callbacks_keep_order_and_never_overlap(site: Site) -> None:
    seen: list[str] = []

    async def slow(client: WebSocketClient, event: HandlerEvent) -> None:
        seen.append(f"> {event.type}")
        for _ in range(3):
            await asyncio.sleep(0)
        seen.append(f"< {event.type}")

    client = WebSocketClient.new(site.url, dict.fromkeys(("onOpen", "onMessage", "onTerminate"), slow))
    assert client is not None
    served = await site.accept()
    await served.switch(after=served.frame(TEXT, "1") + served.close_frame(1000))
    await served.close_code()
    await served.end()
    await terminated(client)
    assert seen == ["> open", "< open", "> message", "< message", "> terminate", "< terminate"]


async def test_a_callback_that_raises_is_logged_once_and_stops_nothing(site: Site, lines: list[Line]) -> None:
    seen: Told = []

    def fails(client: WebSocketClient, event: HandlerEvent) -> None:
        raise ValueError("mine")

    client, served = await opened(site, seen, onOpen=fails, onTerminate=fails)
    await served.send(served.frame(TEXT, "x"))
    await until(lambda: seen)
    client.terminate()
    await finish(served)
    await terminated(client)
    assert seen == [("message", "x")]
    errors = [line for line in lines if line["log_level"] == "error"]
    assert [(line["callback"], line["id"]) for line in errors] == [
        ("onOpen", client.id),
        ("onTerminate", client.id),
    ]


@pytest.mark.parametrize(
    "wrong", [{"onOpen": 1}, {"onMessage": lambda event: None}, SimpleNamespace(onError=lambda: None)]
)
async def test_a_callback_that_cannot_be_called_is_refused(wrong: object) -> None:
    with pytest.raises(InvalidHandler):
        WebSocketClient.new("ws://127.0.0.1/", wrong)


async def test_a_data_type_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="'text', 'blob' or 'object'"):
        WebSocketClient.new("ws://127.0.0.1/", {"dataType": "json"})


async def test_new_without_a_loop_says_what_to_use() -> None:
    with pytest.raises(InvalidState, match="new_in_thread"):
        await asyncio.to_thread(WebSocketClient.new, "ws://127.0.0.1/")


# A thread


async def in_thread(site: Site, given: object) -> WebSocketClient:
    client = await asyncio.to_thread(WebSocketClient.new_in_thread, site.url, given)
    assert client is not None
    return client


async def test_a_client_in_a_thread(site: Site) -> None:
    seen: Told = []
    threads: set[int] = set()

    def note(client: WebSocketClient, event: HandlerEvent) -> None:
        threads.add(threading.get_ident())
        seen.append(told(event))
        if event.type == "message":
            client.send("from a callback")
            with pytest.raises(InvalidState):
                client.join()

    before = threading.active_count()
    client = await in_thread(site, dict.fromkeys(("onOpen", "onMessage", "onTerminate"), note))
    assert not client.join(0)
    served = await site.accept()
    await served.switch()
    await until(lambda: client.status == "Connected")
    client.send("from outside")
    assert (await served.receive()).payload == b"from outside"
    await served.send(served.frame(TEXT, "hello"))
    assert (await served.receive()).payload == b"from a callback"
    client.terminate(4000, "bye")
    await finish(served, 4000)
    assert await asyncio.to_thread(client.join, PATIENCE)
    assert seen == [("open",), ("message", "hello"), ("terminate", 4000, "", True)]
    assert len(threads) == 1
    assert threading.get_ident() not in threads
    assert threading.active_count() <= before + 1  # Only asyncio's own worker may be new.
    client.send("dropped")
    client.terminate()


async def test_an_argument_that_cannot_be_used_leaves_no_thread(site: Site) -> None:
    before = {thread.name for thread in threading.enumerate()}
    with pytest.raises(InvalidArgument):
        WebSocketClient.new_in_thread(site.url, headers={"Upgrade": "x"})
    await until(lambda: {t.name for t in threading.enumerate()} <= before)


async def test_join_is_for_threads(site: Site) -> None:
    client = WebSocketClient.new(site.url)
    assert client is not None
    with pytest.raises(InvalidState, match=r"await client\.terminated"):
        client.join()
    client.terminate()
    await terminated(client)


@pytest.mark.parametrize(
    ("handler", "words"),
    [(5, "onOpen, onMessage"), (object(), "onOpen, onMessage"), ({"onOpn": print}, "did you mean onOpen")],
)
async def test_a_handler_that_would_hear_nothing_is_refused(handler: object, words: str) -> None:
    with pytest.raises(InvalidHandler, match=words):
        WebSocketClient.new("ws://127.0.0.1:9/", handler)
