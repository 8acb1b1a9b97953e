"""explain: every answer of the table, what cannot be answered at all, and how it is shown."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest
import trustme

from interceptor import DOMException, Host, InvalidArgument, Security
from interceptor.client import Explanation, explain
from interceptor.client.verdicts import RULES, verdicts

from .answers import CASES
from .peer import PATIENCE
from .served import Site
from .test_client_servers import client_context, let_the_server_complain, server_context
from .wire import ANYONE, BOTH_LOOPS, quiet_loop

__all__ = ["quiet_loop"]

pytestmark = BOTH_LOOPS


async def ask(name: str) -> Explanation:
    """Have the host give an answer of the table, and explain it."""
    case = CASES[name]
    host = Host([("*", 2)], security=ANYONE)
    host.on("WebSocketUpgrade")(lambda event: event.verbatim(case.reply(event)))
    async with host:
        return await explain(host.ws_url("/x", token=False), case.asked)


async def test_the_table_has_more_than_30_answers() -> None:
    assert len(CASES) > 60


@pytest.mark.parametrize("name", CASES)
async def test_each_answer_is_explained(name: str) -> None:
    case, explanation = CASES[name], await ask(name)
    assert explanation.rule == case.rule
    assert tuple(verdict.opens for verdict in explanation.verdicts) == case.opens
    assert explanation.standard == RULES[case.rule].standard
    assert explanation.opens is (case.opens == (True, True, True))
    assert explanation.request.startswith(b"GET /x HTTP/1.1\r\n")
    assert explanation.response in case.answer.encode("latin-1") or explanation.response.startswith(
        b"HTTP/1."
    )


MARKS = {
    "right": ("response", b"Sec-WebSocket-Accept: "),
    "wrong Accept": ("response", b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
    "no Accept": None,
    "another Upgrade": ("response", b"Upgrade: h2c"),
    "Connection: close": ("response", b"Connection: close"),
    "asked, none": ("request", b"Sec-WebSocket-Protocol: chat, superchat"),
    "asked, another": ("response", b"Sec-WebSocket-Protocol: other"),
    "an unknown extension": ("response", b"Sec-WebSocket-Extensions: x-mux"),
    "404": ("response", b"HTTP/1.1 404 Not Found"),
    "401": ("response", b"HTTP/1.1 401 Unauthorized"),
    "302": ("response", b"Location: /other"),
    "other words": ("response", b"SSH-2.0-OpenSSH_9.2"),
    "nothing": None,
}


@pytest.mark.parametrize("name", MARKS)
async def test_the_decisive_line_is_marked(name: str) -> None:
    explanation, expected = await ask(name), MARKS[name]
    if expected is None:
        assert explanation.mark is None
        assert "  > " not in str(explanation)
        return
    which, line = expected
    assert explanation.mark is not None
    head = explanation.request if which == "request" else explanation.response
    assert explanation.mark[0] == which
    assert head.split(b"\r\n")[explanation.mark[1]].startswith(line)
    assert f"  > {line.decode()}" in str(explanation)


async def test_it_is_shown_in_plain_words() -> None:
    lines = str(await ask("asked, another")).split("\n")
    assert lines[0].startswith("ws://127.0.0.1:")
    assert lines[-6:] == [
        "Subprotocol 'other' was not asked for; asked for: chat, superchat.",
        "The rule: RFC 6455 section 4.1, what the client validates, step 6.",
        "",
        "Chromium  does not open it",
        'Firefox   opens it: its protocol is ""',
        "WebKit    does not open it",
    ]


async def test_what_was_not_tried_is_said() -> None:
    explanation = await ask("no Upgrade")
    assert (explanation.chromium.seen, explanation.firefox.seen, explanation.webkit.seen) == (
        True,
        False,
        False,
    )
    assert str(explanation.firefox) == "Firefox   does not open it (by the standard; not tried)"


async def test_a_server_cannot_write_on_the_terminal() -> None:
    async with Site.serving() as site:
        explaining = asyncio.create_task(explain(site.url))
        served = await site.accept()
        await served.send(b"HTTP/1.1 404 \x1b[2J\r\nX: \x9b\xe9\x07\r\n\r\n")
        served.writer.close()
        text = str(await explaining)
    assert all(" " <= char <= "~" or char == "\n" for char in text)
    assert "X: \\x9b\\xe9\\x07" in text


async def test_a_server_cannot_flood_the_terminal() -> None:
    async with Site.serving() as site:
        explaining = asyncio.create_task(explain(site.url))
        served = await site.accept()
        await served.send(b"HTTP/1.1 404 No\r\nX: " + b"x" * 100_000 + b"\r\n\r\n")
        served.writer.close()
        assert len(str(await explaining)) < 20_000


async def test_a_socket_that_opens_is_closed_with_1000() -> None:
    async with Site.serving() as site:
        explaining = asyncio.create_task(
            explain(site.url, origin="http://page.test", headers={"Cookie": "a=b"})
        )
        served = await site.accept()
        assert (served.field("Origin"), served.field("Cookie")) == ("http://page.test", "a=b")
        await served.switch()
        assert await served.close_code() == 1000
        await served.send(served.close_frame(1000))
        await served.end()
        assert (await explaining).opens


async def test_no_answer_is_a_time_out() -> None:
    async with Site.serving() as site:
        explanation = await explain(site.url, timeout=0.05)
    assert (explanation.rule, explanation.opens, explanation.response) == ("timeout", False, b"")
    assert explanation.request
    assert "Firefox   does not open it: it gives up after 20 s" in str(explanation)
    assert "response: none" in str(explanation)


async def test_nobody_there() -> None:
    async with Site.serving() as site:
        url = site.url
    explanation = await explain(url)
    assert (explanation.rule, explanation.request) == ("network", b"")
    assert "request: not sent" in str(explanation)


async def test_tls() -> None:
    let_the_server_complain()
    async with Site.serving(server_context()) as site:
        untrusted = await explain(site.url)
        explaining = asyncio.create_task(explain(site.url, ssl=client_context()))
        served = await site.accept()
        await served.switch()
        await served.close_code()
        await served.send(served.close_frame(1000))
        served.writer.close()
        trusted = await explaining
    assert (untrusted.rule, untrusted.opens) == ("tls", False)
    assert "not trusted" in untrusted.reason
    assert trusted.opens


async def test_a_bad_port_and_a_proxy_that_is_not_there() -> None:
    assert (await explain("ws://127.0.0.1:25/")).rule == "port"
    async with Site.serving() as site:
        proxy = f"http://127.0.0.1:{site.port}"
    assert (await explain("ws://e.test/", proxy=proxy)).rule == "proxy"


async def test_arguments_that_cannot_be_used() -> None:
    with pytest.raises(DOMException):
        await explain("nowhere")
    with pytest.raises(DOMException):
        await explain("ws://e/", "a b")
    with pytest.raises(InvalidArgument):
        await explain("ws://e/", headers={"Upgrade": "x"})
    with pytest.raises(InvalidArgument):
        await explain("ws://e/", proxy="socks5://e")


async def test_every_rule_has_three_verdicts() -> None:
    for rule in RULES:
        assert [verdict.browser for verdict in verdicts(rule)] == ["Chromium", "Firefox", "WebKit"]
        assert verdicts(rule)[0].seen


# The command


async def command(*arguments: str) -> tuple[int | None, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "interceptor",
        "explain",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parent.parent,
    )
    async with asyncio.timeout(PATIENCE):
        out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


@pytest.mark.asyncio(loop_factories=("asyncio",))
async def test_the_command_explains() -> None:
    host = Host([("*", 1)], root="myapp", subprotocols=["b"], security=Security(origins=["http://page.test"]))
    async with host:
        url = host.ws_url("/x", token=False)
        page = ("--origin", "http://page.test")
        status, out, _ = await command(
            url, *page, "--protocol", "a", "--protocol", "b", "--header", "X-A: 1:2"
        )
        assert status == 0
        assert "    X-A: 1:2\n" in out
        assert "    Sec-WebSocket-Protocol: a, b\n" in out
        assert out.endswith("Chromium  opens it\nFirefox   opens it\nWebKit    opens it\n")
        status, out, _ = await command(url)
        assert status == 1
        assert "  > HTTP/1.1 403 Forbidden\n" in out
        assert (await command("ws://myapp/", *page, "--proxy", host.proxy_url))[0] == 0


WRONG = {
    ("nowhere",): "is no URL",
    ("ws://e/", "--header", "x"): "is not 'Name: value'",
    ("ws://e/", "--timeout", "0"): "no number of seconds",
    ("ws://e/", "--timeout", "x"): "no number of seconds",
    ("ws://e/", "--ca", "/nonexistent.pem"): "--ca /nonexistent.pem",
    (): "URL",
}


@pytest.mark.parametrize("arguments", WRONG)
@pytest.mark.asyncio(loop_factories=("asyncio",))
async def test_the_command_says_what_is_wrong(arguments: tuple[str, ...]) -> None:
    status, out, err = await command(*arguments)
    assert (status, out) == (2, "")
    assert WRONG[arguments] in err
    assert "Traceback" not in err


@pytest.mark.asyncio(loop_factories=("asyncio",))
async def test_the_command_trusts_an_authority(tmp_path: Path) -> None:
    let_the_server_complain()
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = server_context()
    authority.issue_cert("127.0.0.1").configure_cert(context)
    async with Site.serving(context) as site:
        explaining = asyncio.create_task(command(site.url, "--ca", str(tmp_path / "ca.pem")))
        served = await site.accept()
        await served.switch()
        await served.close_code()
        served.writer.close()
        assert (await explaining)[0] == 0


async def test_what_a_server_says_of_its_denial_is_shown() -> None:
    host = Host([("*", 2)], security=ANYONE)
    host.on("WebSocketUpgrade")(lambda event: event.deny(403, body="members only\n\x1b[2J" + "x" * 1000))
    async with host:
        text = str(await explain(host.ws_url("/x", token=False)))
    assert "    members only\n" in text
    assert "\x1b" not in text
    assert text.count("x") < 700
    assert "members only" not in str(await ask("right"))
