"""The shim: its rules against Python's, where it is put, and each of its properties in real browsers.

What a page can see of a socket that the shim brought to the host is compared with what it sees of a native
one: the two must not differ in anything but the URL.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import cast

import pytest
import pytest_asyncio

from interceptor import Host, HTTPRequest, InterceptedURLs, Mode, Security, WebSocketReceive, WebSocketUpgrade
from interceptor.events import Event
from interceptor.ways import shim
from interceptor.ways.pages import SHIM_PATH

from .asked import ask, one
from .engines import Window
from .engines.chromium import chromium
from .engines.firefox import firefox
from .pages import Site
from .peer import PATIENCE, Peer, Recorder

HERE = Path(__file__).parent
CASES = json.loads((HERE / "url_cases.json").read_text(encoding="utf-8"))
MODULE = Path(shim.__file__).with_name("shim.js").read_text(encoding="utf-8")
ENGINES = ("chromium", "firefox")

browser_test = pytest.mark.asyncio(loop_scope="module")


# The table of cases, here and there


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["rules"])[:40])
def test_the_table_in_python(case: dict[str, object]) -> None:
    """A page may say http for ws."""
    table = InterceptedURLs(cast(list[list[object]], case["rules"]))
    said = {}
    for url in cast(dict[str, bool], case["urls"]):
        rule = table.match(re.sub("^http", "ws", url))
        said[url] = rule is not None and rule.mode is not Mode.PASS
    assert said == case["urls"]


TABLE = """async ([module, cases]) => {
    const url = URL.createObjectURL(new Blob([module], {type: "text/javascript"}));
    const {decide, read, normal} = await import(url);
    return cases.map(([rules, urls]) => urls.map(text => {
        const url = read(text, "http://page.test/");
        return url && decide(rules[url.protocol.slice(0, -1)], normal(url));
    }));
}"""


@browser_test
@pytest.mark.parametrize("engine", ENGINES)
async def test_the_table_in_a_browser(windows: dict[str, Window], engine: str) -> None:
    cases = []
    for case in CASES:
        table = InterceptedURLs(case["rules"])
        cases.append([{scheme: shim.rows(table, scheme) for scheme in ("ws", "wss")}, list(case["urls"])])
    async with Site.open() as site:
        await windows[engine].open(site.origin)
        said = cast(list[list[bool]], await windows[engine].run(TABLE, [MODULE, cases]))
    for case, found in zip(CASES, said, strict=True):
        assert dict(zip(case["urls"], found, strict=True)) == case["urls"], case["rules"]


def test_rules_that_are_no_strings_are_left_out() -> None:
    table = InterceptedURLs([(re.compile("ws://a/.*"), 1), ("ws://b/*", 1), (lambda url: True, 0)])
    assert shim.rows(table, "ws") == [("ws://b/*", True)]


# Where it is put


PAGES = [
    b"<!doctype html><html lang=en><head>|<script>1</script>",
    b"<!-- a <head> --><!DOCTYPE html>\n<HEAD data-x='1'>|x",
    b"|<title>x</title>",
    b"|<script>1</script><head>",
    b"|<header>x",
    b"\xef\xbb\xbf<!doctype html>|x",
    b"|plain",
    b"<!doctype html>\n<!-- c -->\n<html>\n<!-- d -->|<body>",
    b"|<!-- never ends <html><head>",
    b"<!doctype html>\n|<!-- never ends <html><head>",
    b"<!--><head>|<script>1</script><!-- -->",
    b"<!---><head>|<script>1</script><!-- -->",
    b"<!-- a --!><head>|<script>1</script><!-- -->",
    b"<?xml version='1.0'?>\n<!DOCTYPE html>|<p>",
    b"<!doctype html><html data-x=\"a>b\" data-y='>'><head data-z='>\">'>|<p>",
    b"<!doctype html>|<html data-x='>",
    b"<!doctype html>|<html-x><head>",
    b"<!doctype html><html><head/>|x",
    "<p>".encode("utf-16"),
]


@pytest.mark.parametrize("page", PAGES)
def test_place(page: bytes) -> None:
    """The bar is where the script is put."""
    assert shim.insert(page.replace(b"|", b"")) == page.replace(b"|", shim.TAG)


def test_place_is_found_in_linear_time() -> None:
    page = b"<!doctype html>" + b"<!-- -->" * 100_000 + b"<!--" * 100_000
    assert shim.insert(page).count(shim.TAG) == 1


@pytest.mark.parametrize("on", [True, False])
async def test_which_pages_have_it(tmp_path: Path, on: bool) -> None:
    (tmp_path / "index.html").write_text("<p>")
    (tmp_path / "a.txt").write_text("<p>")
    host = Host([("http://*.test/*", 1), ("http://myapp/x*", 1)], root="myapp", ui=tmp_path, shim=on)

    @host.on("HTTPRequest")
    def answer(event: HTTPRequest) -> HTTPRequest | None:
        assert event.event == "HTTPRequest"
        return (
            event.respond("<p>", mime="text/plain" if "text" in event.url else "")
            if "/x" in event.url
            else None
        )

    async with host:
        own = Peer.authority(host)
        for path, name, has in (
            ("/", own, on),
            ("/a.txt", own, False),
            ("/x", own, on),
            ("/x?text", own, False),
            ("/x", "a.test", False),
            ("http://myapp/", "myapp", False),
            ("http://a.test/x", own, False),  # The URL counts, and not the Host field.
        ):
            answered = await one(host, ask(path, name))
            assert (shim.TAG in answered.body) is has, path
            assert answered.body.endswith(b"<p>")


def test_the_script_can_stand_in_a_page() -> None:
    text = shim.shim_js(InterceptedURLs([("ws://a/</script><!--*", 1)]), "ws://127.0.0.1:1", "t")
    assert "</script" not in text
    assert "export " not in text


# In browsers


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def windows() -> AsyncIterator[dict[str, Window]]:
    """The browsers, each started once."""
    async with AsyncExitStack() as stack:
        yield {
            "chromium": await stack.enter_async_context(chromium()),
            "firefox": await stack.enter_async_context(firefox({})),
        }


STRUCTURE = """texts => texts.map(text => {
    const page = new DOMParser().parseFromString(text, "text/html");
    return [page.compatMode, page.scripts[0]?.getAttribute("src") ?? null];
})"""


@browser_test
@pytest.mark.parametrize("engine", ENGINES)
async def test_it_comes_first_and_changes_no_mode(windows: dict[str, Window], engine: str) -> None:
    pages = [page.decode() for page in PAGES if not page.startswith(shim.UTF_8) and b"\0" not in page]
    async with Site.open() as site:
        await windows[engine].open(site.origin)
        plain = await windows[engine].run(STRUCTURE, [page.replace("|", "") for page in pages])
        fitted = [page.replace("|", shim.TAG.decode()) for page in pages]
        found = await windows[engine].run(STRUCTURE, fitted)
    modes = [mode for mode, _ in cast(list[list[str]], plain)]
    assert {"CSS1Compat", "BackCompat"} == set(modes)
    assert found == [[mode, SHIM_PATH] for mode in modes]


OBSERVE = (HERE / "shim_observe.js").read_text(encoding="utf-8")
ROWS = [("ws://myapp/*", 1), ("ws://gate.test:81/*", 1), ("ws://manual/*", 2)]


def echo(host: Host) -> Recorder:
    """Let a host send back what comes, greet with a message, and close when it is told to."""

    @host.on("WebSocketReceive")
    def answer(event: WebSocketReceive) -> None:
        if event.data == "close":
            host.WebSocketClose(event.id, 3001, "as told")
        else:
            host.WebSocketSend(event.id, event.data)

    return Recorder(host)


@pytest.fixture
def ui(tmp_path: Path) -> Path:
    """A page whose very first script takes WebSocket away for itself."""
    (tmp_path / "index.html").write_text(
        "<!doctype html><html><head><script src=first.js></script><title>t</title></head><body>x"
    )
    (tmp_path / "first.js").write_text("const First = WebSocket;")
    return tmp_path


async def observed(window: Window, host: Host, url: str) -> dict[str, object]:
    await window.open(host.http_url("/"))
    seen = json.dumps(await window.run(OBSERVE, url))
    own = f"ws://127.0.0.1:{host.address[1]}"
    if url.startswith(own):
        seen = seen.replace(own, "ws://myapp")
    return cast(dict[str, object], json.loads(seen))


@browser_test
@pytest.mark.parametrize("engine", ENGINES)
async def test_a_page_sees_no_difference(windows: dict[str, Window], ui: Path, engine: str) -> None:
    """Under the strict policy of `Host(ui=...)`."""
    window = windows[engine]
    found = []
    for on, url in ((False, None), (True, "ws://myapp/chat?a=b")):
        async with Host(ROWS, root="myapp", ui=ui, shim=on, subprotocols=["two", "one"]) as host:
            echo(host)
            own = host.ws_url("/chat?a=b", token=False)
            found.append(await observed(window, host, url or own))
    native, shimmed = found
    assert native["url"] == "ws://myapp/chat?a=b"
    assert native["origins"] == ["ws://myapp"] * 4
    for name, value in native.items():
        assert shimmed[name] == value, name
    assert shimmed.keys() == native.keys()


SOURCES = """() => {
    const getter = (object, name) => Object.getOwnPropertyDescriptor(object, name).get;
    const functions = [
        WebSocket, getter(WebSocket.prototype, "url"), getter(MessageEvent.prototype, "origin"),
    ];
    return functions.map(f => String(f).replace("get ", "").replaceAll(/\\s+/g, ""));
}"""


@browser_test
@pytest.mark.parametrize("engine", ENGINES)
async def test_the_one_difference_is_a_name_in_the_text_of_a_function(
    windows: dict[str, Window], ui: Path, engine: str
) -> None:
    """As docs/shim.md has it: what stands for a function has no name when it is asked for its source."""
    for on, names in ((False, ("WebSocket", "url", "origin")), (True, ("", "", ""))):
        async with Host(ROWS, root="myapp", ui=ui, shim=on) as host:
            await windows[engine].open(host.http_url("/"))
            said = await windows[engine].run(SOURCES)
        assert said == [f"function{name}(){{[nativecode]}}" for name in names]


CONNECT = """async ([name, url]) => {
    const socket = new (name === "First" ? First : WebSocket)(url);
    return await new Promise(resolve => {
        socket.onopen = () => { socket.close(); };
        socket.onclose = event => resolve([event.code, socket.url]);
    });
}"""


@browser_test
@pytest.mark.parametrize("engine", ENGINES)
async def test_it_is_there_first_and_by_the_rules(windows: dict[str, Window], ui: Path, engine: str) -> None:
    async with Host(ROWS, root="myapp", ui=ui) as host:
        seen = Recorder(host)
        await windows[engine].open(host.http_url("/"))
        urls = {
            "ws://myapp/a?b=c&d": "ws://myapp/a?b=c&d",
            "ws://gate.test:81/x/../y?": "ws://gate.test:81/y?",
            "http://myapp/": "ws://myapp/",
            "ws://MYAPP:80/%7E": "ws://myapp/%7E",
        }
        for given, url in urls.items():
            assert await windows[engine].run(CONNECT, ["First", given]) == [1005, url]
        await seen.wait(lambda: len(seen.of(WebSocketUpgrade)) == 4)
        assert [event.url for event in seen.of(WebSocketUpgrade)] == list(urls.values())


@browser_test
@pytest.mark.parametrize("engine", ENGINES)
async def test_what_no_rule_matches_is_native(windows: dict[str, Window], ui: Path, engine: str) -> None:
    """It goes to its own server, and asks there for what the page asked for."""
    anyone = Security(origins=["*"])
    async with (
        Host([("ws://elsewhere/*", 1)], root="elsewhere", security=anyone) as other,
        Host(ROWS, root="myapp", ui=ui, security=Security(csp=None)) as host,
    ):
        there, here = Recorder(other), Recorder(host)
        await windows[engine].open(host.http_url("/"))
        url = other.ws_url("/plain?x", token=False)
        assert await windows[engine].run(CONNECT, ["WebSocket", url]) == [1005, url]
        await there.wait_for(WebSocketUpgrade)
        assert str(there.of(WebSocketUpgrade)[0].headers).startswith("GET /plain?x HTTP/1.1\r\n")
        assert not here.events


WARNED = """urls => {
    const said = [];
    console.warn = text => said.push(text);
    for (const url of urls) {
        try {
            new WebSocket(url).close();
        } catch {}
    }
    return said;
}"""


@browser_test
@pytest.mark.parametrize("engine", ENGINES)
async def test_a_mistyped_url_is_told_what_rules_there_are(
    windows: dict[str, Window], ui: Path, engine: str
) -> None:
    rows = [("ws://myapp/pass", 0), ("ws://myapp/tasks", 1), ("*://gate/in", 1)]
    async with Host(rows, root="myapp", ui=ui) as host:
        await windows[engine].open(host.http_url("/"))
        right = ["ws://myapp/tasks", "ws://myapp/pass", "ws://elsewhere/x", "/tasks", "ws:", "no:url"]
        wrong = ["ws://myapp/progress", "wss://myapp/tasks?token", "ws://gate/"]
        said = await windows[engine].run(WARNED, [*right, *wrong])
    mine, gate = "ws://myapp/pass, ws://myapp/tasks", "ws://gate/in, wss://gate/in"
    assert said == [
        f"the shim knows no rule for ws://myapp/progress; there are {mine}",
        f"the shim knows no rule for wss://myapp/tasks?token; there are {mine}",
        f"the shim knows no rule for ws://gate/; there are {gate}",
    ]


@browser_test
@pytest.mark.parametrize("engine", ENGINES)
async def test_in_pages_of_others_by_the_text(windows: dict[str, Window], engine: str) -> None:
    window = windows[engine]
    async with Site.open() as site, Host(ROWS, root="myapp", security=site.trusted) as host:
        seen = Recorder(host)
        await window.open(site.origin)
        await window.run(f"() => {{ {host.shim_js()} }}")
        assert await window.run(CONNECT, ["WebSocket", "ws://gate.test:81/in?q"]) == [
            1005,
            "ws://gate.test:81/in?q",
        ]
        event = await seen.wait_for(WebSocketUpgrade)
        assert event.url == "ws://gate.test:81/in?q"
        assert "token=" not in str(event.headers)
    async with Site.open() as site, Host(ROWS, root="myapp") as host:
        await window.open(site.origin)
        await window.run(f"() => {{ {host.shim_js()} }}")
        code, _ = cast(list[object], await window.run(CONNECT, ["WebSocket", "ws://gate.test:81/in"]))
        assert code == 1006  # The origin is still not listed.


FRAME = """async (url) => {
    const frame = document.createElement("iframe");
    frame.src = url;
    const loaded = new Promise(resolve => { frame.onload = resolve; });
    document.body.append(frame);
    await loaded;
    const socket = new frame.contentWindow.WebSocket("ws://myapp/framed");
    return await new Promise(resolve => {
        socket.onopen = () => resolve(socket.url);
        socket.onerror = () => resolve("error");
    });
}"""


@browser_test
@pytest.mark.parametrize("engine", ENGINES)
async def test_frames_of_the_host_have_it_and_empty_ones_do_not(
    windows: dict[str, Window], ui: Path, engine: str
) -> None:
    async with Host(ROWS, root="myapp", ui=ui, security=Security(csp=None)) as host:
        await windows[engine].open(host.http_url("/"))
        assert await windows[engine].run(FRAME, "/index.html") == "ws://myapp/framed"
        assert await windows[engine].run(FRAME, "about:blank") == "error"


OTHER_PORT = """async ([page, pixel, script, frame]) => {
    const load = (tag, src) => new Promise(resolve => {
        const element = document.createElement(tag);
        element.onload = () => resolve("loaded");
        element.onerror = () => resolve("error");
        element.src = src;
        document.body.append(element);
    });
    const options = {method: "POST", mode: "no-cors", credentials: "include"};
    const post = await fetch(page, options).then(() => "sent", () => "sent");
    // A frame tells its page when it is done, not whether it was refused.
    return [await load("img", pixel), await load("script", script), post, await load("iframe", frame)];
}"""


@browser_test
@pytest.mark.parametrize("engine", ENGINES)
async def test_a_page_of_another_port_has_the_cookie_and_yet_nothing(
    windows: dict[str, Window], ui: Path, engine: str
) -> None:
    host = Host([*ROWS, ("http://myapp/*", 1)], root="myapp", ui=ui)
    asked: list[str] = []

    @host.on("HTTPRequest")
    def note(event: Event) -> None:
        asked.append(str(event.message()[7]))

    async with host, Site.open() as site:
        await windows[engine].open(host.http_url("/"))  # Gets the cookie.
        asked.clear()
        await windows[engine].open(site.origin)
        for known in (False, True):  # The token is nothing to a page that knows it.
            urls = [
                host.http_url(path, token=known)
                for path in ("/do", "/pixel", "/.interceptor/shim.js", "/framed")
            ]
            assert await windows[engine].run(OTHER_PORT, urls) == ["error", "error", "sent", "loaded"]
        spelled = host.ws_url("ws://gate.test:81/x", token=False)
        code, _ = cast(list[object], await windows[engine].run(CONNECT, ["WebSocket", spelled]))
        assert code == 1006
        assert not [url for url in asked if not url.endswith("/favicon.ico")]


@browser_test
@pytest.mark.parametrize("engine", ENGINES)
async def test_a_link_of_another_site_leads_here_with_the_token(
    windows: dict[str, Window], ui: Path, engine: str
) -> None:
    (ui / "sub").mkdir()
    (ui / "sub" / "index.html").write_text("<script src=../first.js></script>")
    window = windows[engine]
    async with Host(ROWS, root="myapp", ui=ui) as host, Site.open() as site:
        seen = Recorder(host)
        for path in ("/index.html", "/sub?x=1"):
            await window.open(site.origin)
            url = host.http_url(path, token=True).replace("127.0.0.1", "localhost")
            await window.run("url => { location.href = url; }", url)
            async with asyncio.timeout(PATIENCE):
                while True:
                    try:
                        if await window.run("() => typeof First === 'function'"):
                            break
                    except Exception:  # The page that was asked is gone.
                        await asyncio.sleep(0.05)
            code, _ = cast(list[object], await window.run(CONNECT, ["WebSocket", "ws://myapp/linked"]))
            assert code == 1005
        assert len(seen.of(WebSocketUpgrade)) == 2
