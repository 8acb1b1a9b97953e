"""The programs of docs/pages.md, shim.md, pywebview.md and qt.md run as they stand there."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import textwrap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from interceptor import Host, Security, WebSocketUpgrade
from interceptor.ways.shim import TAG

from .browser import launched
from .devtools import Devtools, free_port
from .engines import START, started
from .engines.windows import OFFSCREEN, require_qt
from .pages import Site
from .peer import PATIENCE, Recorder
from .test_docs_browsers import HEARD, PROGRAM

ROOT = Path(__file__).parent.parent
INDEX = "<!doctype html><title>t</title><p>It is here"


def snippets(page: str) -> list[str]:
    """The Python of a page."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def test_they_are_there() -> None:
    """Each of them has its test here, or those of qt.md in test_docs_browsers.py."""
    pages = ("pages.md", "shim.md", "pywebview.md", "qt.md")
    assert [len(snippets(page)) for page in pages] == [3, 1, 1, 2]


def test_nobody_is_sent_to_a_package_of_that_name_that_is_not_ours() -> None:
    """There is no release; who follows an instruction is to get what is in the checkout."""
    paths = [*ROOT.glob("*.md")]
    for folder in ("docs", "examples", "interceptor"):
        paths += [path for path in (ROOT / folder).rglob("*") if path.suffix in (".md", ".py")]
    lines = [(path, line) for path in paths for line in path.read_text(encoding="utf-8").splitlines()]
    installs = [
        (path.name, line) for path, line in lines if "pip install" in line and ".venv" not in str(path)
    ]
    assert len(installs) > 10
    assert not [(name, line) for name, line in installs if re.search(r"install[^.`#]*\binterceptor\b", line)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder to start a program in, with a folder of pages."""
    (tmp_path / "ui").mkdir()
    (tmp_path / "ui" / "index.html").write_text(INDEX)
    return tmp_path


@asynccontextmanager
async def running(folder: Path, code: str) -> AsyncIterator[str]:
    """Run a program that prints its URL and ends by Enter."""
    env = {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}
    log = folder / "log"
    async with started(sys.executable, "-c", code, env=env, log=str(log), cwd=folder) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        async with asyncio.timeout(PATIENCE):
            yield (await process.stdout.readline()).decode().strip()
            process.stdin.write(b"\n")
            assert await process.wait() == 0, log.read_text()
    assert "Traceback" not in log.read_text()


async def fetch(url: str, body: bytes | None = None, **fields: str) -> tuple[int, str, str]:
    """Status, policy and text of a page."""

    def ask() -> tuple[int, str, str]:
        try:
            with urlopen(Request(url, body, fields), timeout=PATIENCE) as answer:
                policy = answer.headers["Content-Security-Policy"] or ""
                return answer.status, policy, answer.read().decode()
        except HTTPError as refused:
            refused.close()
            return refused.code, "", ""

    return await asyncio.to_thread(ask)


async def test_files(folder: Path) -> None:
    async with running(folder, snippets("pages.md")[0]) as url:
        status, policy, text = await fetch(url)
        assert (status, text) == (200, INDEX.replace("<title>", f"{TAG.decode()}<title>"))
        assert "default-src 'self'" in policy
        assert (await fetch(f"{url}nothing"))[0] == 404


async def test_answers(folder: Path) -> None:
    first, second, _ = snippets("pages.md")
    before, with_, after = first.partition("with host.in_thread():")
    async with running(folder, before + second + with_ + after) as url:
        own = {"Origin": url.removesuffix("/"), "Content-Type": "text/plain"}
        assert (await fetch(f"{url}api/greet", b"Ann", **own))[::2] == (200, "Hello, Ann")
        assert (await fetch(f"{url}api/greet", b"Ann", Origin="http://other.test"))[0] == 403
        assert (await fetch(f"{url}api/greet"))[0] == 404  # That is not the callback's, nor a file's.
        assert (await fetch(url))[2].endswith("It is here")


PHOTO = bytes(range(256)) + b"\r\n--"
UPLOAD = (
    b'--AaB03x\r\nContent-Disposition: form-data; name="who"\r\n\r\n\xc3\x84nne\r\n'
    b'--AaB03x\r\nContent-Disposition: form-data; name="photo"; filename="a.eml"\r\n'
    b"Content-Type: message/rfc822\r\n\r\n" + PHOTO + b"\r\n--AaB03x--\r\n"
)
FORM = "application/x-www-form-urlencoded"


async def test_queries_forms_json_and_uploads(folder: Path) -> None:
    first, second, third = snippets("pages.md")
    before, with_, after = first.partition("with host.in_thread():")
    async with running(folder, before + second + third + with_ + after) as url:

        async def said(path: str, body: bytes | None = None, kind: str = "") -> object:
            own = {"Origin": url.removesuffix("/"), "Content-Type": kind} if body else {}
            status, _, text = await fetch(f"{url}api/{path}", body, **own)
            return json.loads(text)["said"] if status == 200 else status

        assert await said("query?who=%C3%84nne+B&who=C") == "Änne B"
        assert await said("form", b"who=%C3%84nne+B", FORM) == "Änne B"
        for kind in ("application/json", "text/plain;charset=UTF-8"):
            assert await said("json", '{"who": "Änne"}'.encode(), kind) == "Änne"
        assert await said("upload", UPLOAD, "multipart/form-data; boundary=AaB03x") == ["Änne", "a.eml", 260]
        assert await said("form") == 404


async def heard(folder: Path) -> None:
    """Run chat.py, a program of Qt, until it has heard of its page."""
    env = {**OFFSCREEN, "PYTHONPATH": str(ROOT), "HOME": str(folder)}
    log = folder / "log"
    async with started(sys.executable, "chat.py", env=env, log=str(log), cwd=folder) as process:
        assert process.stdout is not None
        async with asyncio.timeout(START):
            assert await process.stdout.readline() == HEARD, log.read_text()


SHIM_IN_QT = """
import sys
from PySide6.QtCore import QUrl
from PySide6.QtWebEngineCore import QWebEnginePage
from PySide6.QtWidgets import QApplication
from interceptor import Host, Security

host = Host([("ws://myapp/*", 1)], root="myapp", security=Security(origins=["http://page.test"]))

@host.on("WebSocketReceive")
def received(event):
    print("Python heard", event.data, flush=True)

with host.in_thread():
    application = QApplication(sys.argv)
    page = QWebEnginePage()
SNIPPET
    page.setHtml(
        "<script>new WebSocket('ws://myapp/chat').onopen = e => e.target.send('hello')</script>",
        QUrl("http://page.test/"),
    )
    application.exec()
"""


@pytest.mark.engine
@pytest.mark.timeout(180)
async def test_the_shim_in_a_page_of_qt(tmp_path: Path) -> None:
    require_qt()
    code = SHIM_IN_QT.replace("SNIPPET", textwrap.indent(snippets("shim.md")[0], "    "))
    (tmp_path / "chat.py").write_text(code, encoding="utf-8")
    await heard(tmp_path)


@pytest.mark.chromium
async def test_the_shim_in_a_page_of_playwright() -> None:
    async with Site.open() as site, Host([("ws://myapp/*", 1)], root="myapp", security=site.trusted) as host:
        seen = Recorder(host)
        async with launched() as browser:
            page = await browser.new_page()
            await page.add_init_script(host.shim_js())
            await page.goto(site.origin)
            await page.evaluate("() => { window.socket = new WebSocket('ws://myapp/chat'); }")
            assert (await seen.wait_for(WebSocketUpgrade)).url == "ws://myapp/chat"


@pytest.mark.engine
@pytest.mark.timeout(180)
async def test_qt_in_one_program(tmp_path: Path) -> None:
    """What docs/qt.md says of it, with the lines of its two programs."""
    require_qt()
    text = (ROOT / "docs" / "qt.md").read_text(encoding="utf-8")
    assert "`os.environ.update(host.qt_environ())` before\n`QApplication(...)`" in text
    programs = dict(PROGRAM.findall(text))
    before, with_, _ = programs["chat.py"].partition("with contextlib")
    window = "os.environ.update(host.qt_environ())\n" + programs["window.py"]
    code = f"{before}with host.in_thread():\n{textwrap.indent(window, '    ')}"
    (tmp_path / "chat.py").write_text(code, encoding="utf-8")
    assert with_
    await heard(tmp_path)


CHAT = """text => new Promise(resolve => {
    const socket = new WebSocket("ws://myapp/chat");
    socket.onopen = () => socket.send(text);
    socket.onmessage = event => resolve(event.data);
    socket.onclose = () => resolve("closed");
})"""


def test_the_policy_is_written_out() -> None:
    assert f"  ```\n  {Security().csp}\n  ```\n" in (ROOT / "docs" / "pages.md").read_text(encoding="utf-8")


API = """
class Api:
    def hello(self):
        return f"{webview.windows[0].evaluate_js('1 + 1')} of Python's"
"""


@pytest.mark.engine
@pytest.mark.timeout(120)
@pytest.mark.parametrize("bridge", [False, True])
async def test_pywebview(folder: Path, bridge: bool) -> None:
    """As it stands, and with a function of Python's that the page calls by pywebview's own bridge."""
    require_qt()
    pytest.importorskip("webview", reason="no pywebview")
    code = snippets("pywebview.md")[0]
    if bridge:
        code = code.replace('host.http_url("/"))', 'host.http_url("/"), js_api=Api())')
        code = code.replace("with host", f"{API}\nwith host")
    (folder / "app.py").write_text(code, encoding="utf-8")
    log = folder / "log"
    log.touch()
    env = {
        **OFFSCREEN,
        **dict.fromkeys(("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"), str(folder)),
        "PYTHONPATH": str(ROOT),
        "PYWEBVIEW_GUI": "qt",
        "QT_API": "pyside6",
        "QTWEBENGINE_CHROMIUM_FLAGS": "--no-sandbox --disable-gpu",
        "QTWEBENGINE_REMOTE_DEBUGGING": free_port(),
    }
    driver = ("-m", "tests.window_driver", "app.py")
    async with started(sys.executable, *driver, env=env, log=str(log), cwd=folder) as process:
        async with Devtools.find(log, "127.0.0.1") as page:
            await page.text("It is here")
            assert await page.run(CHAT, "hello") == "HELLO"
            if bridge:
                await page.until("() => window.pywebview?.api?.hello !== undefined")
                assert await page.run("() => window.pywebview.api.hello()") == "2 of Python's"
            assert process.stdin is not None
            process.stdin.write(b'{"quit": "now"}\n')
        async with asyncio.timeout(PATIENCE):
            assert await process.wait() == 0, log.read_text()
    assert "Traceback" not in log.read_text()
