"""The pages that the host serves of its own, below `/.interceptor/`."""

from __future__ import annotations

from collections.abc import Callable

from ..exceptions import HandshakeFailure
from ..handshake import Request, final_answer
from .guard import Guard

__all__ = ["PAC_PATH", "SHIM_PATH", "Page", "Pages"]

PAC_PATH = "/.interceptor/proxy.pac"
SHIM_PATH = "/.interceptor/shim.js"
MIME = {PAC_PATH: "application/x-ns-proxy-autoconfig", SHIM_PATH: "text/javascript; charset=utf-8"}
FIELDS = (("Cache-Control", "no-store"), ("Cross-Origin-Resource-Policy", "same-origin"))

Page = Callable[[Request], bytes]
"""Answers a request."""


class Pages:
    """The host's pages.

    Args:
        guard: knows the token.
        shim: writes the script for the pages that the host serves.
        pac: writes the proxy auto-configuration of the moment; None where the host is no proxy.
    """

    def __init__(self, guard: Guard, shim: Callable[[], str], pac: Callable[[], str] | None) -> None:
        self._guard = guard
        self._writers = {SHIM_PATH: shim}
        if pac is not None:
            self._writers[PAC_PATH] = pac

    def find(self, target: str) -> Page | None:
        """Return the page at a path, if there is one."""
        path = target.partition("?")[0]
        write = self._writers.get(path)
        return None if write is None else lambda request: self._serve(request, path, write)

    def _serve(self, request: Request, path: str, write: Callable[[], str]) -> bytes:
        if request.method not in ("GET", "HEAD"):
            raise HandshakeFailure(405, "this page is read with GET", (("Allow", "GET, HEAD"),))
        own = path == SHIM_PATH and self._guard.is_own_page(request)
        if not (own or self._guard.is_trusted(request)):
            # It has the names of the rules in it, and any page of any site can have a script run from here.
            why = "this needs the token in its URL, as in host.pac_url, and is for no page of another origin"
            raise HandshakeFailure(403, why)
        body = write().encode()
        answer = final_answer(200, MIME[path], body, FIELDS)
        return answer.removesuffix(body) if request.method == "HEAD" else answer
