"""The files of `Host(ui=...)` over real TCP: what is served, how, and what is not."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from interceptor import Host, HTTPRequest, InterceptorError, Security
from interceptor.ways import files

from .asked import ask, get, one
from .peer import PATIENCE, Answer, Peer
from .wire import Line, lines, quiet_loop

__all__ = ["lines", "quiet_loop"]

PAGE = b"<!doctype html><title>home</title>"
DATA = bytes(range(256)) * 1024


@pytest.fixture
def ui(tmp_path: Path) -> Path:
    """A folder with files in it, next to one that is nobody's business."""
    folder = tmp_path / "ui"
    (folder / "sub" / "empty").mkdir(parents=True)
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "ui-secret").mkdir()
    (tmp_path / "ui-secret" / "a.txt").write_text("secret")
    for name, data in {
        "index.html": PAGE,
        "sub/index.html": b"sub",
        "data.bin": DATA,
        "app.js": b"1",
        "näme b.txt": b"n",
        ".env": b"secret",
        "empty.css": b"",
    }.items():
        (folder / name).write_bytes(data)
    return folder


def served(ui: Path, **more: object) -> Host:
    """A host that serves a folder and changes nothing in it."""
    return Host([("ws://myapp/*", 1)], root="myapp", ui=ui, **{"shim": False, **more})  # type: ignore[arg-type]


async def fetch(ui: Path, path: str, *extra: str, method: str = "GET") -> Answer:
    async with served(ui) as host, Peer.connect(host) as peer:
        await peer.send(ask(path, Peer.authority(host), "Connection: close", *extra, method=method))
        if method != "HEAD":
            return await peer.answer()
        head = await peer.reader.readuntil(b"\r\n\r\n")
        fields = (line.partition(": ") for line in head.decode().split("\r\n")[1:-2])
        return Answer(int(head.split()[1]), {name.lower(): value for name, _, value in fields}, b"", head)


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [
        ("/", 200, PAGE),
        ("/index.html", 200, PAGE),
        ("/?a=b", 200, PAGE),
        ("/sub/", 200, b"sub"),
        ("/sub/../app.js", 200, b"1"),
        ("/n%C3%A4me%20b.txt", 200, b"n"),
        ("/empty.css", 200, b""),
        ("/sub/empty/", 404, None),
        ("/sub/empty", 404, None),
        ("/nothing", 404, None),
        ("/app.js/", 404, None),
        ("/app.js/x", 404, None),
    ],
)
async def test_which_file(ui: Path, path: str, status: int, body: bytes | None) -> None:
    answer = await fetch(ui, path)
    assert answer.status == status
    assert body is None or answer.body == body


async def test_a_folder_without_its_slash_is_sent_there(ui: Path) -> None:
    answer = await fetch(ui, "/sub?x")
    assert (answer.status, answer.headers["location"]) == (301, "/sub/?x")
    assert (await fetch(ui, "/sub")).headers["location"] == "/sub/"


async def test_a_link_of_another_site_leads_to_a_folder_too(ui: Path) -> None:
    """With the token, which it needs again there."""
    link = ("Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document")
    async with served(ui) as host:
        own, target = Peer.authority(host), Peer.with_token(host, "/sub?x=1")
        moved = await one(host, ask(target, own, *link))
        assert (moved.status, moved.headers["location"]) == (301, target.replace("/sub", "/sub/"))
        assert (await one(host, ask(moved.headers["location"], own, *link))).body == b"sub"
        assert "token" not in (await one(host, ask("/sub?x=1", own))).headers["location"]


ESCAPES = [
    "/../secret.txt",
    "/%2e%2e/secret.txt",
    "/.%2e/secret.txt",
    "/sub/%2e%2e/%2e%2e/secret.txt",
    "/..%2fsecret.txt",
    "/sub%2findex.html",
    "/..%5csecret.txt",
    "/..\\secret.txt",
    "/sub/..%5c..%5c..%5csecret.txt",
    "/%252e%252e/secret.txt",
    "/..%252fsecret.txt",
    "//secret.txt",
    "//127.0.0.1/secret.txt",
    "/../ui-secret/a.txt",
    "/%2e%2e/ui-secret/a.txt",
    "/{absolute}",
    "/%2f{absolute}",
    "/C:/Windows/win.ini",
    "/c:%5cwindows%5cwin.ini",
    "/app.js%00",
    "/app.js%00.html",
    "/app.js::$DATA",
    "/app.js.",
    "/app.js%20",
    "/con",
    "/NUL.html",
    "/com1.txt",
    "/aux.",
    "/lpt%C2%B9.js",
    "/.env",
    "/sub/.%2e/.env",
    "/%ff",
    "/%c0%ae%c0%ae/secret.txt",
    "/link.txt",
    "/linked/secret.txt",
    "/pipe",
    "/" + "x" * 300,
    "/" + "a/" * 2000,
    "/%",
    "/app.js%0a",
    "/~",
    "/*",
    "/in?../../secret.txt",
]


@pytest.mark.parametrize("path", ESCAPES)
async def test_no_way_out(ui: Path, path: str) -> None:
    """Also where something is there to be had: links that lead out, and a pipe that would never end."""
    if sys.platform != "win32":
        (ui / "link.txt").symlink_to(ui.parent / "secret.txt")
        (ui / "linked").symlink_to(ui.parent)
        os.mkfifo(ui / "pipe")
        for name in (
            "con",
            "NUL.html",
            "com1.txt",
            "lpt¹.js",
            "app.js ",
            "app.js.",
            "app.js::$DATA",
            "..\\secret.txt",
        ):
            (ui / name).write_text("secret")
    answer = await fetch(ui, path.format(absolute=ui.parent / "secret.txt"))
    assert answer.status in (404, 400)
    assert b"secret" not in answer.body


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
async def test_links_within_are_followed(ui: Path) -> None:
    (ui / "link.js").symlink_to(ui / "app.js")
    assert (await fetch(ui, "/link.js")).body == b"1"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
async def test_a_file_that_may_not_be_read_is_404(ui: Path) -> None:
    (ui / "app.js").chmod(0)
    assert (await fetch(ui, "/app.js")).status == 404


SWAPS = ["file", "folder", "pipe", "device"]


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there, and there are no pipes")
@pytest.mark.parametrize("by_name", [True, False])
@pytest.mark.parametrize("swap", SWAPS)
async def test_what_is_put_in_the_place_of_a_file_before_it_is_opened(
    ui: Path, monkeypatch: pytest.MonkeyPatch, swap: str, by_name: bool
) -> None:
    """By somebody who may write in the folder; also where names cannot be opened one after the other."""
    if not by_name:
        monkeypatch.setattr(os, "supports_dir_fd", set())
    (ui.parent / "ui-secret" / "index.html").write_text("secret")
    found = files.Files._inside

    def swapping(self: files.Files, path: Path) -> Path | None:
        inside = found(self, path)
        if path.name == "index.html":
            path.unlink()
            if swap == "folder":
                path.parent.joinpath("empty").rmdir()
                path.parent.rmdir()
                path.parent.symlink_to(ui.parent / "ui-secret")
            elif swap == "pipe":
                os.mkfifo(path)
            else:
                path.symlink_to(ui.parent / "secret.txt" if swap == "file" else "/dev/zero")
        return inside

    monkeypatch.setattr(files.Files, "_inside", swapping)
    answer = await fetch(ui, "/sub/index.html")
    assert (answer.status, b"secret" in answer.body) == (404, False)


@pytest.mark.parametrize("by_name", [True, False])
async def test_files_are_opened_either_way(ui: Path, monkeypatch: pytest.MonkeyPatch, by_name: bool) -> None:
    if not by_name:
        monkeypatch.setattr(os, "supports_dir_fd", set())
    (ui / "sub" / "sub").mkdir()
    (ui / "sub" / "sub" / "sub").write_bytes(b"deep")
    assert (await fetch(ui, "/sub/sub/sub")).body == b"deep"
    assert (await fetch(ui, "/data.bin")).body == DATA


@pytest.mark.skipif(sys.platform == "win32", reason="there the system has no such limit")
async def test_a_file_that_is_there_is_not_404_where_the_process_can_open_no_more(
    ui: Path, lines: list[Line]
) -> None:
    import resource

    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with served(ui) as host, Peer.connect(host) as peer:
        assert (await peer.ask(ask("/app.js", Peer.authority(host)))).status == 200
        taken: list[int] = []
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, limits[1]), limits[1]))
        try:
            with suppress(OSError):
                while len(taken) < 256:
                    taken.append(os.dup(0))
            assert len(taken) < 256
            answer = await peer.ask(ask("/app.js", Peer.authority(host)))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            for number in taken:
                os.close(number)
    assert (answer.status, answer.body) == (503, b"this host has too many open files; try again later\n")
    assert "a file cannot be opened" in str(lines)


# How it is sent


@pytest.mark.parametrize("change", [1, -20_000_000])
async def test_a_file_that_changes_while_it_is_sent(ui: Path, lines: list[Line], change: int) -> None:
    """One that grows, as logs do, is sent as it was; one that got shorter is seen to be cut."""
    size, path = 30_000_000, ui / "log.txt"
    path.write_bytes(b"x" * size)
    async with served(ui) as host, Peer.connect(host) as peer:
        own = Peer.authority(host)
        peer.raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        await peer.send(ask("/log.txt", own))
        async with asyncio.timeout(PATIENCE):
            head = await peer.reader.readuntil(b"\r\n\r\n")
            assert f"Content-Length: {size}\r\n".encode() in head
            os.truncate(path, size + change)
            if change > 0:
                assert await peer.reader.readexactly(size) == b"x" * size
                assert (await peer.ask(ask("/app.js", own))).body == b"1"
            else:
                assert len(await peer.rest()) < size
    assert not [line for line in lines if line["log_level"] == "error"]
    assert ("got shorter while it was sent" in str(lines)) is (change < 0)


@pytest.mark.parametrize(
    ("name", "mime"),
    [
        ("a.html", "text/html; charset=utf-8"),
        ("a.js", "text/javascript; charset=utf-8"),
        ("a.mjs", "text/javascript; charset=utf-8"),
        ("a.md", "text/markdown; charset=utf-8"),
        ("a.css", "text/css; charset=utf-8"),
        ("a.json", "application/json"),
        ("a.svg", "image/svg+xml"),
        ("a.wasm", "application/wasm"),
        ("a.woff2", "font/woff2"),
        ("a.webp", "image/webp"),
        ("a.PNG", "image/png"),
        ("a.tar.gz", "application/octet-stream"),
        ("a", "application/octet-stream"),
    ],
)
async def test_mime(ui: Path, name: str, mime: str) -> None:
    (ui / name).write_bytes(b"x")
    answer = await fetch(ui, f"/{name}")
    got = answer.headers["content-type"].replace("svg+xml; charset=utf-8", "svg+xml")
    assert got == mime
    assert "content-encoding" not in answer.headers
    assert answer.headers["x-content-type-options"] == "nosniff"


RANGES = [
    ("bytes=0-0", 206, DATA[:1], "bytes 0-0/262144"),
    ("bytes=10-19", 206, DATA[10:20], "bytes 10-19/262144"),
    ("bytes=262143-", 206, DATA[-1:], "bytes 262143-262143/262144"),
    ("bytes=-5", 206, DATA[-5:], "bytes 262139-262143/262144"),
    ("bytes=5-9999999", 206, DATA[5:], "bytes 5-262143/262144"),
    ("bytes=262144-", 416, None, "bytes */262144"),
    ("bytes=0-1,5-6", 200, DATA, None),
    ("lines=1-2", 200, DATA, None),
    ("bytes=x", 200, DATA, None),
]


@pytest.mark.parametrize(("asked", "status", "body", "content_range"), RANGES)
async def test_range(
    ui: Path, asked: str, status: int, body: bytes | None, content_range: str | None
) -> None:
    answer = await fetch(ui, "/data.bin", f"Range: {asked}")
    assert answer.status == status
    assert answer.headers.get("content-range") == content_range
    if body is not None:
        assert answer.body == body
        assert answer.headers["accept-ranges"] == "bytes"


@pytest.mark.parametrize("name", ["index.html", "data.bin"])
async def test_conditions(ui: Path, name: str) -> None:
    whole = await fetch(ui, f"/{name}")
    etag = whole.headers["etag"]
    assert whole.headers["cache-control"] == "no-cache"
    for extra in (f"If-None-Match: {etag}", f'If-None-Match: "x", W/{etag}', "If-None-Match: *"):
        same = await fetch(ui, f"/{name}", extra)
        assert (same.status, same.body, same.headers["etag"]) == (304, b"", etag)
    assert (await fetch(ui, f"/{name}", 'If-None-Match: "x"')).status == 200
    part = await fetch(ui, f"/{name}", "Range: bytes=0-1", f"If-Range: {etag}")
    assert (part.status, len(part.body)) == (206, 2)
    (ui / name).write_bytes(b"changed")
    assert (await fetch(ui, f"/{name}", f"If-None-Match: {etag}")).body == b"changed"
    changed = await fetch(ui, f"/{name}", "Range: bytes=0-1", f"If-Range: {etag}")
    assert (changed.status, changed.body) == (200, b"changed")


@pytest.mark.parametrize("name", ["If-Modified-Since", "If-Unmodified-Since", "If-Range"])
@pytest.mark.parametrize(
    "value", ["Mon, 01 Jan 2020 00:00:00 +99999999999999", "Mon, 01 Jan 99999 00:00:00 GMT", "never", "\xe9"]
)
async def test_a_date_that_is_none_is_ignored(ui: Path, name: str, value: str) -> None:
    answer = await fetch(ui, "/data.bin", f"{name}: {value}")
    assert (answer.status, answer.body) == (200, DATA)


async def test_head_and_other_methods(ui: Path) -> None:
    head = await fetch(ui, "/data.bin", method="HEAD")
    assert (head.status, head.headers["content-length"]) == (200, str(len(DATA)))
    async with served(ui) as host:
        own = Peer.authority(host)
        for method in ("POST", "PUT", "DELETE"):
            answer = await one(host, ask("/app.js", own, f"Origin: http://{own}", method=method))
            assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")


async def test_one_connection_for_many_files(ui: Path) -> None:
    async with served(ui) as host:
        own = Peer.authority(host)
        answers = await get(host, *(ask(path, own) for path in ("/", "/data.bin", "/app.js") * 5))
    assert [answer.body for answer in answers] == [PAGE, DATA, b"1"] * 5


# Policy


async def test_the_policy_is_strict_and_can_be_replaced(ui: Path) -> None:
    policy = (await fetch(ui, "/")).headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    for csp in ("default-src 'none'", None):
        async with served(ui, security=Security(csp=csp)) as host:
            headers = (await one(host, ask("/", Peer.authority(host)))).headers
            assert headers.get("content-security-policy") == csp
    with pytest.raises(InterceptorError, match="one line"):
        Security(csp="a\r\nb")


# Beside rules and the program


async def test_the_program_comes_first_and_files_are_what_it_leaves(ui: Path) -> None:
    host = Host([("http://myapp/*", 1)], root="myapp", ui=ui, shim=False)

    @host.on("HTTPRequest")
    def answer(event: HTTPRequest) -> HTTPRequest | None:
        return event.respond("mine") if "/api" in event.url else None

    async with host:
        own = Peer.authority(host)
        api, page, none = await get(host, ask("/api/x", own), ask("/", own), ask("/none", own))
    assert (api.body, page.body, none.status) == (b"mine", PAGE, 404)


async def test_files_are_the_root_s_only_and_also_by_its_name_through_the_proxy(ui: Path) -> None:
    async with Host([("ws://gate/*", 1)], root="myapp", ui=ui, shim=False) as host:
        assert (await one(host, ask("http://myapp/", "myapp"))).body == PAGE
        assert (await one(host, ask("/", "gate"))).status == 426
        assert "http://myapp/*" in host.pac()


@pytest.mark.parametrize("wrong", ["not-there", "app.js", 3])
def test_what_is_no_folder_is_refused(ui: Path, wrong: object) -> None:
    with pytest.raises(InterceptorError, match="ui "):
        Host(ui=ui / wrong if isinstance(wrong, str) else wrong)  # type: ignore[arg-type]


def test_without_werkzeug_it_says_what_to_install(ui: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "werkzeug.utils", None)
    with pytest.raises(InterceptorError, match="pip install werkzeug"):
        files.Files(ui, None)
