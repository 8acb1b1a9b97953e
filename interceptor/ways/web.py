"""Requests for pages: the rules decide, then the program answers, or a file of `Host(ui=...)` does."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Protocol

from ..exceptions import HandshakeFailure
from ..handshake import check_body, check_request
from ..patterns import URL, Rule
from . import program, reception, visit
from .files import Files, Fit
from .guard import Guard
from .listener import Receiver, Tunnel
from .program import Program
from .reception import Asked, Reception
from .shim import insert
from .visit import Response, Room, Visit

__all__ = ["Home", "Web"]

REMEDY = 'register one with host.on("HTTPRequest"), and return event.respond(...)'
BODIES = 4
"""Bodies of requests, of the largest size, that are held at once."""

NOBODY = "nobody here answers this URL"
UNANSWERED = "no callback for HTTPRequest returned an answer"
FORGOTTEN = "return event.respond(...), or the event itself where 404 is meant"


class Home(reception.Home, program.Home, visit.Home, Protocol):
    """What answering pages needs of the host."""


class Web:
    """Answers requests for pages.

    Args:
        home: the host.
        guard: judges who may ask.
        reception: knows the rules.
        files: what is served at the root; None for nothing.
        shim: whether pages get the script by which their WebSockets come here.
    """

    def __init__(
        self, home: Home, guard: Guard, reception: Reception, files: Files | None, shim: bool
    ) -> None:
        self._home = home
        self._guard = guard
        self._reception = reception
        self._program = Program(home)
        self._files = files
        self._shim = shim
        self._room = Room(BODIES * home.settings.limits.body)

    def take(self, asked: Asked, wire: Tunnel, then: Receiver) -> bool:
        """Take a request if it is for the program or for a file; tell whether it is.

        Args:
            asked: what for; an http or https URL.
            wire: the client's side.
            then: receives what comes on the connection afterwards.

        Raises:
            HandshakeFailure: the request is refused.
        """
        rule = self._reception.rule_for(asked.url)
        files = self._files if asked.url.split("/")[2] == self._home.table.root else None
        if files is not None and not self._program.has_callback:
            rule = None
        if rule is None and files is None:
            return False
        check_request(asked.request)
        check_body(asked.request)
        named = self._reception.is_named(asked)
        self._check(asked, named)
        respond = partial(self._respond, asked, rule, files)
        Visit(self._home, wire, asked.request, respond, then, self._room)
        return True

    def _check(self, asked: Asked, named: bool) -> None:
        try:
            self._guard.check_page(asked.request, asked.url, named=named, token=asked.token)
        except HandshakeFailure as failure:
            self._home.complaints.warning("refused", url=asked.url, status=403, why=failure.reason)
            raise

    async def _respond(
        self,
        asked: Asked,
        rule: Rule | None,
        files: Files | None,
        body: bytearray,
        gone: asyncio.Future[None],
    ) -> Response:
        result, response, at_home = None, None, self._is_at_home(asked)
        fit = insert if at_home and self._shim else None
        if rule is not None:
            result = await self._program.ask(asked.request, asked.url, body, gone)
            response = self._program.read(result, asked.request, asked.url)
            if response is not None:
                self._finish(response, fit)
        if response is None and files is not None:
            # With the token, which a redirect to a folder has to bring along.
            url = URL(self._guard.with_token(asked.url)) if asked.token else asked.url
            response = files.find(asked.request, url, fit)
        if response is None:
            raise self._nobody(asked, rule, result)
        if not self._guard.lets_in_all:
            # Browsers do not say of a name without TLS whose page asks: this keeps that page from using it.
            response.add("Cross-Origin-Resource-Policy", "same-origin")
        if at_home and response.is_page:
            response.fields.append(("Set-Cookie", self._guard.cookie))
        return response

    def _finish(self, response: Response, fit: Fit | None) -> None:
        response.add("X-Content-Type-Options", "nosniff")
        response.add("Cache-Control", "no-store")
        if not self._guard.lets_in_all:
            response.add("Content-Security-Policy", "frame-ancestors 'self'")
        if fit is not None and response.is_page and isinstance(response.body, bytes) and response.body:
            response.body = fit(response.body)

    def _nobody(self, asked: Asked, rule: Rule | None, result: object) -> HandshakeFailure:
        if rule is not None and not self._program.has_callback:
            self._home.complaints.warning(
                "no callback for HTTPRequest", url=asked.url, status=404, remedy=REMEDY
            )
        elif rule is not None and result is None:
            self._home.complaints.warning(UNANSWERED, url=asked.url, status=404, remedy=FORGOTTEN)
        return HandshakeFailure(404, NOBODY)

    def _is_at_home(self, asked: Asked) -> bool:
        """Whether a page is at the host's own address; a browser that was told of us needs no more."""
        return not asked.proxied and self._guard.is_own((asked.request.value("host") or "").lower())
