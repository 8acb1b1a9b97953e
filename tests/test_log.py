from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator, MutableMapping
from typing import Any

import pytest
import structlog

from interceptor import Host, Mode, Security, WebSocketError, WebSocketUpgrade
from interceptor.log import Seldom, get_logger
from tests.peer import Peer, Recorder, close_frame, frame, request

ID, URL = "0123456789abcde", "ws://myapp/chat"
LEVELS = ("debug", "info", "warning", "error", "critical")
TOKEN = "SECRET-SECRET-SECRET"
SECRETS = (
    f"Cookie: session=SECRET; interceptor_token={TOKEN}\r\nAuthorization: Bearer SECRET\r\n"
    f"Proxy-Authorization: Basic SECRET\r\nSec-WebSocket-Protocol: interceptor.token.{TOKEN}\r\n"
)

Line = dict[str, Any]


@pytest.fixture(autouse=True)
def unconfigured() -> Iterator[None]:
    structlog.reset_defaults()
    yield
    structlog.reset_defaults()


@pytest.fixture
def configured() -> list[Line]:
    """The lines of a program that has set structlog up and wants them all."""
    lines: list[Line] = []

    def keep(logger: object, method: str, event: MutableMapping[str, Any]) -> Any:
        lines.append({"level": method, **event})
        raise structlog.DropEvent

    structlog.configure(
        processors=[keep], wrapper_class=structlog.make_filtering_bound_logger(logging.NOTSET)
    )
    return lines


def say(words: str) -> None:
    for level in LEVELS:
        getattr(get_logger(id=ID, url=URL), level)(f"{level} {words}", more=7)


def test_a_program_that_set_nothing_up_gets_warnings_and_errors(capfd: pytest.CaptureFixture[str]) -> None:
    say("heard")
    out, err = capfd.readouterr()
    assert out == ""
    assert [level for level in LEVELS if f"{level} heard" in err] == ["warning", "error", "critical"]
    for line in err.splitlines():
        assert ID in line
        assert URL in line
        assert "more" in line
    assert len(err.splitlines()) == 3


def test_a_line_goes_to_the_standard_error_of_the_moment(capsys: pytest.CaptureFixture[str]) -> None:
    get_logger().warning("first")
    assert "first" in capsys.readouterr().err
    get_logger().warning("second")
    assert "second" in capsys.readouterr().err


def test_what_a_callback_raised_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        raise LookupError("in the program")
    except LookupError as exc:
        get_logger(id=ID, url=URL).error("callback raised", exc_info=exc)
    err = capsys.readouterr().err
    assert "LookupError" in err
    assert "in the program" in err
    assert __file__.rpartition("/")[2] in err


def test_a_program_that_set_structlog_up_gets_every_line_its_way(
    configured: list[Line], capfd: pytest.CaptureFixture[str]
) -> None:
    say("heard")
    assert configured == [
        {"level": level, "event": f"{level} heard", "id": ID, "url": URL, "more": 7} for level in LEVELS
    ]
    assert capfd.readouterr() == ("", "")


def test_a_program_may_set_structlog_up_later(capsys: pytest.CaptureFixture[str]) -> None:
    get_logger().warning("before")
    assert "before" in capsys.readouterr().err
    structlog.configure(processors=[structlog.processors.LogfmtRenderer(sort_keys=True)])
    get_logger(id=ID).warning("after")
    assert capsys.readouterr() == (f"event=after id={ID}\n", "")


def test_in_the_standard_library_the_logger_is_named_for_us(caplog: pytest.LogCaptureFixture) -> None:
    structlog.configure(
        processors=[structlog.stdlib.render_to_log_kwargs],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    with caplog.at_level(logging.INFO):
        get_logger(id=ID).info("opened")
    assert [(record.name, record.getMessage()) for record in caplog.records] == [("interceptor", "opened")]
    assert caplog.records[0].__dict__["id"] == ID


def test_loggers_do_not_share_what_they_carry(configured: list[Line]) -> None:
    get_logger(id="one").info("a")
    get_logger(url="two").info("b")
    assert configured == [
        {"level": "info", "event": "a", "id": "one"},
        {"level": "info", "event": "b", "url": "two"},
    ]


def test_nothing_is_configured_by_using_us() -> None:
    handlers, level = list(logging.getLogger().handlers), logging.getLogger().level
    get_logger(id=ID).info("x")
    assert not structlog.is_configured()
    assert (logging.getLogger().handlers, logging.getLogger().level) == (handlers, level)


PROGRAM = """
import asyncio, logging, structlog
import interceptor, interceptor.ways.listener
async def main():
    async with interceptor.Host([("ws://myapp/*", 2)]):
        assert not structlog.is_configured()
asyncio.run(main())
assert not structlog.is_configured()
assert not logging.getLogger().handlers
assert not logging.getLogger("interceptor").handlers
assert logging.getLogger("interceptor").level == logging.NOTSET
"""


def test_nothing_is_configured_by_importing_and_running_us() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stdout) == (0, "")
    # The one thing to say: a manual row has no callback.
    assert len(done.stderr.splitlines()) == 1
    assert "WebSocketUpgrade" in done.stderr


# What a host says


BAD_HEADS = [
    request("/auto", "myapp", origin="http://evil.test"),
    request("/auto", "myapp", origin="http://myapp", without=("Upgrade",)),
    request("/auto", "myapp", origin="http://myapp", without=("Connection",)),
    request("/auto", "myapp", origin="http://myapp", without=("Sec-WebSocket-Key",)),
    request("/auto", "myapp", origin="http://myapp", without=("Sec-WebSocket-Version",)),
    request("/auto", "myapp", origin="http://myapp", extra="Sec-WebSocket-Protocol: a b\r\n"),
    request("/auto", "myapp", origin="http://myapp", extra="Sec-WebSocket-Key: SECRET\r\n"),
    request("/auto", "myapp", origin="http://myapp", method="POST"),
    request("/auto", "myapp", origin="http://myapp", version="HTTP/1.0"),
    request("/.interceptor/ws/gate/in", "myapp", origin="http://evil.test"),
]
STRANGE_HEADS = [
    request("/elsewhere", "myapp", origin="http://myapp"),
    request("/auto", "strange.test", origin="http://myapp"),
    request("/auto", "myapp", extra="Set-Cookie SECRET\r\n"),
    request("/auto", "myapp", extra="X: SECRET\x00\r\n"),
]
BAD_ANSWERS = [
    "HTTP/1.1 401 No\r\nSet-Cookie: session=SECRET\x00\r\n\r\n",
    "Set-Cookie: session=SECRET\r\nHTTP/1.1 401 No\r\n\r\n",
    "HTTP/1.1 401 No\r\nSet-Cookie session=SECRET\r\n\r\n",
    "HTTP/1.1 401 No\r\nSet-Cookie: session=SECRET\r\n",
    "HTTP/1.1 401 No\r\nContent-Length: 1\r\nSet-Cookie: session=SECRET\r\n\r\nSECRET",
    "HTTP/1.1 101 Yes\r\nSec-WebSocket-Protocol: chat\r\nSet-Cookie: session=SECRET\r\n\r\n",
    "SECRET",
]


def with_secrets(head: bytes) -> bytes:
    line, _, rest = head.partition(b"\r\n")
    method, target, version = line.split(b" ")
    return b"%s %s?token=%s %s\r\n%s%s" % (method, target, TOKEN.encode(), version, SECRETS.encode(), rest)


def made() -> Host:
    rules = [("ws://myapp/auto", Mode.AUTO), ("ws://myapp/manual", Mode.MANUAL), ("ws://gate/in", Mode.AUTO)]
    return Host(rules, root="myapp", security=Security(token=TOKEN))


def assert_no_secret(*said: object) -> None:
    for one in said:
        assert "SECRET" not in str(one)


@pytest.mark.parametrize("head", BAD_HEADS)
async def test_a_refused_request_is_told_with_its_socket_and_without_secrets(
    head: bytes, configured: list[Line]
) -> None:
    async with made() as host, Peer.connect(host) as peer:
        recorder = Recorder(host)
        answer = await peer.ask(with_secrets(head))
        error = await recorder.wait_for(WebSocketError)
    assert answer.status >= 400
    failures = [line for line in configured if line["event"] == "handshake failed"]
    assert [(line["level"], line["id"]) for line in failures] == [("warning", error.id)]
    assert failures[0]["url"].startswith("ws://")
    assert_no_secret(configured, error.text, answer.head, answer.body)


def test_what_strangers_can_cause_again_and_again_is_told_seldom(configured: list[Line]) -> None:
    now = 0.0
    seldom = Seldom(lambda: now)
    for number in range(100):
        seldom.warning("refused", url="x" * 1000, number=number)
        seldom.warning("odd", why="other")
    assert [line["number"] for line in configured if line["event"] == "refused"] == [*range(20)]
    assert configured[0]["url"] == "x" * 200 + "..."
    assert not any("left_out" in line for line in configured)
    configured.clear()
    for _ in range(3):
        now += 1
        for number in range(5):
            seldom.warning("refused", number=number)
    told = [(line["number"], line["left_out"], line["level"]) for line in configured]
    assert told == [(0, 80, "warning"), (0, 4, "warning"), (0, 4, "warning")]
    now += 3600
    configured.clear()
    for number in range(30):
        seldom.warning("refused", number=number)
    assert [line["number"] for line in configured] == [*range(20)]


async def test_a_page_that_is_refused_hundreds_of_times_is_told_of_seldom(configured: list[Line]) -> None:
    rules = [("ws://myapp/*", 1), ("http://myapp/*", 1)]
    async with Host(rules, root="myapp") as host, Peer.connect(host) as peer:
        own = Peer.authority(host)
        page = f"GET /{'x' * 9000} HTTP/1.1\r\nHost: {own}\r\n"
        for head in (
            page + "Sec-Fetch-Site: cross-site\r\n\r\n",
            page.replace(own, "rebound.test") + "\r\n",
            request("/" + "x" * 9000, own, origin="http://evil.test").decode(),
        ):
            configured.clear()
            for _ in range(200):
                async with Peer.connect(host) as peer:
                    assert (await peer.ask(head.encode())).status in (403, 421)
            warned = [line for line in configured if line["level"] == "warning"]
            assert 20 <= len(warned) < 100
            assert all(len(line["url"]) < 250 for line in warned)


async def test_pages_that_nobody_answers_are_told_of_seldom(configured: list[Line]) -> None:
    """Any page can have a browser that goes by the host fetch them, as images say."""
    async with Host([("*://myapp.test/*", 1)]) as host:
        for number in range(60):
            async with Peer.connect(host) as peer:
                head = f"GET http://myapp.test/{number} HTTP/1.1\r\nHost: myapp.test\r\n\r\n"
                assert (await peer.ask(head.encode())).status == 404
    warned = [line for line in configured if line["event"] == "no callback for HTTPRequest"]
    assert 20 <= len(warned) < 30


SPOILED = [
    "/?token=@auto",
    "/auto?x=1?token=@",
    "/auto?token=@#x",
    "/auto?Token=@",
    "/auto?a;token=@",
    "/@",
    "/auto%3Ftoken=@",
    "/auto?token%3D@",
    "/auto?token=@&a=@",
    "/.interceptor/ws/gate/in?a=@",
]


@pytest.mark.parametrize("encoded", [False, True])
@pytest.mark.parametrize("proxied", [False, True])
@pytest.mark.parametrize("target", SPOILED)
async def test_the_token_in_a_url_that_was_put_together_wrongly(
    target: str, proxied: bool, encoded: bool, configured: list[Line]
) -> None:
    token = TOKEN.replace("S", "%53").replace("-", "%2d") if encoded else TOKEN
    target = ("http://myapp" if proxied else "") + target.replace("@", token)
    for origin, at in ((None, "myapp"), ("http://myapp", "myapp"), ("http://evil.test", "rebound.test")):
        host = Host([("*://myapp/*", 1), ("ws://gate/*", 1)], root="myapp", security=Security(token=TOKEN))
        seen = Recorder(host)
        async with host:
            for head in (
                request(target, at, origin=origin),
                f"GET {target} HTTP/1.1\r\nHost: {at}\r\n\r\n".encode(),
            ):
                async with Peer.connect(host) as peer:
                    answer = await peer.ask(head)
                assert b"ECRET" not in answer.head + answer.body
        assert "ECRET" not in repr([event.message() for event in seen.events])
    assert configured
    assert "ECRET" not in repr(configured)


@pytest.mark.parametrize("head", STRANGE_HEADS)
async def test_a_request_that_is_none_of_ours_is_told_at_debug_level(
    head: bytes, configured: list[Line]
) -> None:
    async with made() as host, Peer.connect(host) as peer:
        answer = await peer.ask(with_secrets(head))
    assert answer.status >= 400
    refused = [line for line in configured if line["event"] == "request refused"]
    assert [(line["level"], line["status"]) for line in refused] == [("debug", answer.status)]
    assert_no_secret(configured, answer.head, answer.body)


@pytest.mark.parametrize("text", BAD_ANSWERS)
async def test_a_wrong_answer_is_told_without_its_secrets(text: str, configured: list[Line]) -> None:
    errors: list[WebSocketError] = []
    host = made()
    host.on("WebSocketUpgrade")(lambda event: event.answer(text))
    host.on("WebSocketError")(errors.append)
    async with host, Peer.connect(host) as peer:
        answer = await peer.ask(with_secrets(request("/manual", "myapp", origin="http://myapp")))
    assert answer.status == 500
    assert len(errors) == 1
    warned = [line for line in configured if line["level"] == "warning"]
    assert [(line["id"], line["url"]) for line in warned] == [(errors[0].id, "ws://myapp/manual")]
    assert_no_secret(configured, errors[0].text, answer.head, answer.body)


@pytest.mark.parametrize(
    "bad", [frame(1, b"SECRET\xff"), frame(3, b"SECRET"), b"", close_frame(1000, "done")]
)
async def test_the_life_of_a_socket_is_told_without_secrets(bad: bytes, configured: list[Line]) -> None:
    async with made() as host, Peer.connect(host) as peer:
        recorder = Recorder(host)
        answer = await peer.ask(with_secrets(request("/auto", "myapp", origin="http://myapp")))
        assert answer.status == 101
        upgrade = await recorder.wait_for(WebSocketUpgrade)
        await peer.send(frame(1, "SECRET") + bad)
        peer.half_close()
        await recorder.wait(lambda: "WebSocketClose" in recorder.names())
    told = [line for line in configured if line["event"] in ("opened", "ended abnormally", "closed")]
    clean = bad == close_frame(1000, "done")
    assert [line["event"] for line in told] == ["opened", *([] if clean else ["ended abnormally"]), "closed"]
    assert all((line["id"], line["url"]) == (upgrade.id, "ws://myapp/auto") for line in told)
    assert upgrade.url == "ws://myapp/auto"
    assert_no_secret(configured, upgrade.url)
