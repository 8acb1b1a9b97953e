"""The pages that the host serves of its own, below `/.interceptor/`."""

from __future__ import annotations

from collections.abc import Callable

from ..exceptions import HandshakeFailure
from ..handshake import Request, final_answer

__all__ = ["PAC_PATH", "Page", "Pages"]

PAC_PATH = "/.interceptor/proxy.pac"
PAC_TYPE = "application/x-ns-proxy-autoconfig"

Page = Callable[[Request, bool], bytes]
"""Answers a request; told whether it has the token."""


class Pages:
    """The host's pages.

    Args:
        pac: writes the proxy auto-configuration of the moment; None where the host is no proxy.
    """

    def __init__(self, pac: Callable[[], str] | None) -> None:
        self._pages: dict[str, Page] = {}
        if pac is not None:
            self._pages[PAC_PATH] = lambda *asked: _serve(PAC_TYPE, pac, *asked)

    def find(self, target: str) -> Page | None:
        """Return the page at a path, if there is one."""
        return self._pages.get(target.partition("?")[0])


def _serve(mime: str, write: Callable[[], str], request: Request, token: bool) -> bytes:
    if request.method not in ("GET", "HEAD"):
        raise HandshakeFailure(405, "this page is read with GET", (("Allow", "GET, HEAD"),))
    if not token:
        # It has the names of the rules in it, and any page of any site can have a script loaded from here.
        raise HandshakeFailure(403, "this page needs the token in its URL; take host.pac_url as it is")
    body = write().encode()
    answer = final_answer(200, mime, body, (("Cache-Control", "no-store"),))
    return answer.removesuffix(body) if request.method == "HEAD" else answer
