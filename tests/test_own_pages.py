"""The page that the host serves of its own: the proxy auto-configuration."""

from __future__ import annotations

import pytest

from interceptor import Host, InvalidState

from .peer import Answer, Peer

ROWS = [("ws://myapp.test/*", 1), ("wss://tls.test/*", 1)]

pytestmark = pytest.mark.asyncio(loop_factories=("asyncio", "uvloop"))


async def fetch(host: Host, url: str, *, method: str = "GET", at: str = "", extra: str = "") -> Answer:
    """Ask as a browser does."""
    target = "/" + url.split("/", 3)[3]
    async with Peer.connect(host) as peer:
        lines = f"{method} {target} HTTP/1.1\r\nHost: {at or Peer.authority(host)}\r\n{extra}\r\n"
        await peer.send(lines.encode())
        if method == "HEAD":
            head = await peer.rest()
            return Answer(int(head.split(b" ")[1]), {}, head.partition(b"\r\n\r\n")[2], head)
        return await peer.answer()


async def test_it_is_right_for_the_rules_of_the_moment() -> None:
    async with Host(ROWS) as host:
        answer = await fetch(host, host.pac_url)
        assert answer.status == 200
        assert answer.headers["content-type"] == "application/x-ns-proxy-autoconfig"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.body.decode() == host.pac()
        host.intercepted_urls = [("ws://later.test/*", 1)]
        assert b"later.test" in (await fetch(host, host.pac_url)).body


async def test_it_has_no_body_where_none_is_asked_for() -> None:
    async with Host(ROWS) as host:
        answer = await fetch(host, host.pac_url, method="HEAD")
        assert (answer.status, answer.body) == (200, b"")


@pytest.mark.parametrize("fault", ["no token", "a wrong token", "POST", "another name"])
async def test_it_is_not_for_everybody(fault: str) -> None:
    """Any page of any site can have a script loaded from here, and would learn the rules."""
    async with Host(ROWS) as host:
        url = host.pac_url if fault in ("POST", "another name") else host.pac_url.partition("?")[0]
        answer = await fetch(
            host,
            url + ("?token=wrong" if fault == "a wrong token" else ""),
            method="POST" if fault == "POST" else "GET",
            at="rebound.test" if fault == "another name" else "",
        )
        assert answer.status == {"POST": 405, "another name": 421}.get(fault, 403)
        assert b"myapp.test" not in answer.body


async def test_a_host_that_is_no_proxy_has_none() -> None:
    async with Host(ROWS, proxy=False) as host:
        with pytest.raises(InvalidState, match="proxy=False"):
            host.pac_url  # noqa: B018
        assert (await fetch(host, f"/x/y/.interceptor/proxy.pac?token={host._guard.token}")).status == 400
