"""How another proxy is written: for the host's upstream_proxy, and for the client's proxy."""

from __future__ import annotations

import base64
from collections.abc import Callable
from functools import partial

import pytest

from interceptor import Host, InvalidArgument
from interceptor.client import WebSocket
from interceptor.upstream import Upstream, read_upstream

TAKERS: dict[str, Callable[[str], object]] = {
    "upstream_proxy": lambda url: Host(upstream_proxy=url),
    "proxy": lambda url: WebSocket("ws://e.test/", proxy=url),
}
taken_by = pytest.mark.parametrize("argument", TAKERS)
read = partial(read_upstream, argument="proxy")


def basic(pair: bytes) -> str:
    return "Basic " + base64.b64encode(pair).decode()


@taken_by
@pytest.mark.parametrize(
    "url",
    [
        "",
        "proxy:8080",
        "https://proxy:8080",
        "socks5://proxy:8080",
        "http://proxy",
        "http://proxy:0",
        "http://proxy:99999",
        "http://proxy:1/path",
        "http://a b:1",
        "http://[proxy]:1",
        b"http://proxy:8080",
    ],
)
def test_one_that_is_none(argument: str, url: str) -> None:
    with pytest.raises(InvalidArgument, match=f"^{argument} is not http://host:port, or http://user:pass"):
        TAKERS[argument](url)


@taken_by
def test_a_password_is_not_repeated(argument: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        TAKERS[argument]("http://me:hunter2@proxy")
    assert "hunter2" not in str(caught.value)


def test_how_it_is_written() -> None:
    assert read("http://[::1]:3128/") == Upstream("[::1]", 3128, None)
    assert read("HTTP://Proxy.Test:80") == Upstream("Proxy.Test", 80, None)
    assert read("http://me@proxy:1").credentials == basic(b"me:")
    assert read("http://me:a:b@proxy:1").credentials == basic(b"me:a:b")
    assert read("http://%C3%A9:p%40ss@proxy:1").credentials == basic("é:p@ss".encode())


def test_how_it_is_named_in_messages() -> None:
    assert str(read("http://me:hunter2@[::1]:3128")) == "[::1]:3128"
