"""The doctor: real browsers, and what is said when something is wrong."""

from __future__ import annotations

import asyncio
import os
import shutil
import ssl
import stat
import sys
from pathlib import Path

import pytest
from websockets.asyncio.client import connect

from interceptor import Host, InvalidArgument, InvalidState, cli
from interceptor.config import Tls
from interceptor.doctor import Browser, Diagnosis, Finding, Site, examination, launch
from interceptor.doctor.diagnosis import SOCKETS, Socket
from interceptor.doctor.examination import ASTRAY, PROGRAM, SERVER, UNHEARD, UNTRUSTED
from interceptor.doctor.server import serving
from interceptor.doctor.site import Outcome
from interceptor.ways.certs import Authority

from .browser import require_chromium
from .engines import missing
from .peer import PATIENCE, Peer, request

OURS = Socket("ws", True)
SECURE = Socket("wss", True)
THEIRS = Socket("ws", False)


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("browser", "ways"),
    [
        ("chromium", ("pac", "proxy", "resolver")),
        ("firefox", ("pac", "proxy")),
        ("qt", ("proxy", "pac", "resolver")),
    ],
)
async def test_all_ways_of_a_real_browser(browser: Browser, ways: tuple[str, ...]) -> None:
    if browser == "chromium":
        require_chromium()
    told: list[str] = []
    try:
        diagnosis = await Host().doctor(browser, say=told.append)
    except InvalidState as exc:
        missing(browser, str(exc), excused=browser == "qt")
    assert diagnosis.working == diagnosis.ways == ways, str(diagnosis)
    assert len(told) == len(ways)


class TestJudgement:
    @pytest.mark.parametrize(
        ("socket", "outcome", "saw", "fault"),
        [
            (OURS, Outcome(PROGRAM, 1000), [], ""),
            (THEIRS, Outcome(SERVER, 1000), [], ""),
            (OURS, Outcome(SERVER, 1000), [], "from the real server, and not from the program"),
            (THEIRS, Outcome(PROGRAM, 1000), [], "from the program, and not from the real server"),
            (THEIRS, Outcome(None, 1006), [], ASTRAY),
            (OURS, Outcome(None, 1006), [], UNHEARD),
            (SECURE, Outcome(None, 1006), [], UNTRUSTED),
            (OURS, Outcome(None, 1006), ["ws://doctor.interceptor.test/: origin"], "refused it: ws://doctor"),
            (SECURE, Outcome(None, 1006), ["ws://doctor.interceptor.test/: origin"], UNTRUSTED),
        ],
    )
    def test_what_is_said_of_a_socket(
        self, socket: Socket, outcome: Outcome, saw: list[str], fault: str
    ) -> None:
        said = examination._judge(socket, outcome, saw)
        assert (fault in said) if fault else said == ""

    def test_the_whole_text(self) -> None:
        faults = {OURS: "no good", SECURE: "no good"}
        bad = tuple(Finding("pac", socket, faults.get(socket, "")) for socket in SOCKETS)
        good = tuple(Finding("proxy", socket) for socket in SOCKETS)
        diagnosis = Diagnosis("Chromium 1", "chromium_args", bad + good)
        assert diagnosis.working == ("proxy",)
        text = str(diagnosis)
        assert "pac: ws intercepted, pac: wss intercepted\n    no good" in text
        assert text.endswith('In your program: host.chromium_args(via="proxy")')
        assert str(Diagnosis("Chromium 1", "chromium_args", bad)).endswith("No way works whole.")


class TestFaults:
    async def test_a_browser_that_ignores_the_settings(self, monkeypatch: pytest.MonkeyPatch) -> None:
        require_chromium()
        monkeypatch.setitem(examination.BROWSERS, "chromium", ("pac",))
        monkeypatch.setattr(Host, "chromium_args", lambda self, via: [])
        diagnosis = await Host().doctor()
        faults = {finding.socket: finding.fault for finding in diagnosis.findings}
        assert faults[OURS] == UNHEARD
        assert faults[SECURE] == UNTRUSTED
        assert faults[THEIRS] == ""
        assert diagnosis.working == ()

    async def test_a_browser_that_does_not_take_the_certificate(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        require_chromium()
        whole = Host.chromium_args
        monkeypatch.setitem(examination.BROWSERS, "chromium", ("proxy",))
        monkeypatch.setattr(Host, "chromium_args", lambda self, via: whole(self, via)[:2])
        diagnosis = await Host().doctor()
        faults = {finding.socket: finding.fault for finding in diagnosis.findings}
        assert (faults[OURS], faults[SECURE]) == ("", UNTRUSTED)

    @pytest.mark.skipif(os.name != "posix", reason="a script stands for the browser")
    async def test_a_browser_that_ends_at_once(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        fake = tmp_path / "chromium"
        fake.write_text('#!/bin/sh\n[ "$1" = --version ] && exit 0\necho no screen here >&2\nexit 7\n')
        fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("CHROMIUM", str(fake))
        diagnosis = await Host().doctor()
        assert not diagnosis.working
        for words in ("did not stay", "status 7", "no screen here"):
            assert words in str(diagnosis)

    @pytest.mark.skipif(os.name != "posix", reason="a script stands for the browser")
    async def test_a_browser_that_does_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        fake = tmp_path / "chromium"
        fake.write_text('#!/bin/sh\n[ "$1" = --version ] && exit 0\nexec sleep 1000\n')
        fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("CHROMIUM", str(fake))
        monkeypatch.setattr(examination, "PATIENCE", 0.05)
        assert "did not come to the page within" in str(await Host().doctor())

    @pytest.mark.parametrize(("browser", "variable"), [("chromium", "CHROMIUM"), ("firefox", "FIREFOX")])
    async def test_no_browser(self, browser: Browser, variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(variable, "/nowhere/browser")
        with pytest.raises(InvalidState, match="install"):
            await Host().doctor(browser)

    async def test_no_qt(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "executable", shutil.which("false") or "false")
        with pytest.raises(InvalidState, match="pip install PySide6"):
            async with launch.qt({}, "about:blank"):
                pass

    async def test_a_browser_that_we_do_not_know(self) -> None:
        with pytest.raises(InvalidArgument, match="'chromium', 'firefox', 'qt'"):
            await Host().doctor("lynx")  # type: ignore[arg-type]

    async def test_a_host_that_is_no_proxy(self) -> None:
        require_chromium()
        with pytest.raises(InvalidState, match="proxy=False"):
            await Host(proxy=False).doctor()


async def test_the_real_server_is_one() -> None:
    authority = Authority(Tls())
    async with serving("hello") as plain, serving("hello", authority.context("localhost")) as secure:
        async with connect(f"ws://127.0.0.1:{plain}/") as socket:
            assert await socket.recv() == "hello"
        trust = ssl.create_default_context(cadata=authority.pem)
        async with connect(f"wss://localhost:{secure}/", ssl=trust) as socket:
            assert await socket.recv() == "hello"
        async with Peer.dial(f"ws://127.0.0.1:{plain}/") as peer:
            assert (await peer.ask(request("/", without=("Upgrade",)))).status == 426


async def test_the_page_is_for_those_who_know_its_path() -> None:
    async with Site.open() as site:
        url = site.begin(["ws://x.test/"])
        for target, status in (("/", 404), ("/" + url.rpartition("/")[2], 200)):
            async with Peer.dial(url) as peer:
                answer = await peer.ask(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                assert answer.status == status
        assert b'["ws://x.test/"]' in answer.body
        body = b'[["heard", 1000]]'
        async with Peer.dial(url) as peer:
            head = (
                f"POST /{url.rpartition('/')[2]} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            await peer.ask(head.encode() + body)
        async with asyncio.timeout(PATIENCE):
            assert await site.report() == [Outcome("heard", 1000)]


def test_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[str] = []

    async def doctor(self: Host, browser: str, *, say: object) -> Diagnosis:
        asked.append(browser)
        fault = "" if browser == "qt" else "no good"
        return Diagnosis(browser, "settings", tuple(Finding("pac", socket, fault) for socket in SOCKETS))

    monkeypatch.setattr(Host, "doctor", doctor)
    assert [cli.main(["doctor", "--browser", name]) for name in ("qt", "firefox")] == [0, 1]
    assert cli.main(["doctor"]) == 1
    assert asked == ["qt", "firefox", "chromium"]
    assert "In your program: host.settings" in capsys.readouterr().out
