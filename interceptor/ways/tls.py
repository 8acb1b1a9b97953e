"""TLS at this end: what a client asks for in its first message, and who ends it.

OpenSSL reads the ClientHello, nobody else: it is given to a probe that would answer it, and the probe is
thrown away. Then the real end gets the same bytes.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, cast

from .. import log
from ..config import Timeouts, Tls
from .listener import Holder, Look, Receiver, Tunnel

if TYPE_CHECKING:
    from .certs import Authority

__all__ = ["Ends", "Hello", "TlsInside"]

H2 = "h2"
REMEDY = (
    "start the browser with the settings of this host (such as host.chromium_args()), or have it trust "
    "host.ca_pem; a self-made CA is kept from run to run by Tls(ca=PATH)"
)
Spawn = Callable[[Coroutine[object, object, None]], asyncio.Task[None]]


class Ends:
    """Ends TLS in the names of servers.

    Args:
        tls: what the host was told.
        timeouts: `head` for the TLS handshake, `close` for its end.
        complaints: warnings of what strangers do.
    """

    def __init__(self, tls: Tls, timeouts: Timeouts, complaints: log.Seldom) -> None:
        self.timeouts = timeouts
        self.complaints = complaints
        self._tls = tls
        self._made: dict[str, tuple[Authority, ssl.SSLContext]] = {}
        if tls.ca is not None:
            self._pair  # noqa: B018  # a file with a fault is said at once

    @property
    def authority(self) -> Authority:
        """The host's own."""
        return self._pair[0]

    def hello(self, accepts: Callable[[str | None], bool]) -> Hello:
        """Return what reads a ClientHello; see there."""
        return Hello(self._pair[1], accepts)

    @property
    def _pair(self) -> tuple[Authority, ssl.SSLContext]:
        """The authority and the probe's context, made when they are first needed."""
        if not self._made:
            from .certs import Authority  # It takes longer to import than all the rest.

            authority = Authority(self._tls)
            made = (authority, authority.make_probe(Probe, Probe.note))
            self._made.setdefault("", made)  # One step: of two threads that come at once, one wins.
        return self._made[""]


class Probe(ssl.SSLObject):
    """Reads a ClientHello as a server would.

    Attributes:
        name: the server's name that the client gave (SNI), in lower case; None if it gave none.
        complete: whether the ClientHello has been read.
        accepts: whether a name is right.
    """

    name: str | None = None
    complete = False
    accepts: Callable[[str | None], bool] = staticmethod(lambda name: True)

    @staticmethod
    def note(probe: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> int | None:
        """Take the name; OpenSSL calls this once the ClientHello is complete, name or no name."""
        assert isinstance(probe, Probe)
        probe.complete = True
        probe.name = name.lower().removesuffix(".") if name else None
        return None if probe.accepts(probe.name) else ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME


class Hello:
    """A ClientHello as it comes in.

    Args:
        context: the probe's.
        accepts: whether a server's name (None: none was given) is right here.

    Attributes:
        alert: what to send before closing; None unless the hello is refused, by OpenSSL or for its name.
    """

    def __init__(self, context: ssl.SSLContext, accepts: Callable[[str | None], bool]) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._probe = cast(Probe, context.wrap_bio(self._incoming, self._outgoing, server_side=True))
        self._probe.accepts = accepts
        self._taken = 0
        self.alert: bytes | None = None

    def take(self, data: bytes) -> bool:
        """Take all bytes that came so far; tell whether the ClientHello is read."""
        self._incoming.write(data[self._taken :])
        self._taken = len(data)
        try:
            self._probe.do_handshake()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError:
            self.alert = self._outgoing.read()
        return self._probe.complete or self.alert is not None

    @property
    def name(self) -> str | None:
        """The server's name that the client gave, None if it gave none."""
        return self._probe.name

    @property
    def offers_h2(self) -> bool:
        """Whether the client would speak HTTP/2 (RFC 7301): then it does not open a WebSocket."""
        return self._probe.selected_alpn_protocol() == H2


class TlsInside:
    """Receives a connection that begins with TLS: ends it here, or has somebody else take it as it is.

    Args:
        ends: ends TLS.
        spawn: runs a coroutine.
        accepts: whether a server's name (None: none was given) is right here.
        inside: gets what is inside, once the name is known.
        otherwise: takes the connection of a client that would speak HTTP/2; None where it is ended too.
    """

    def __init__(
        self,
        ends: Ends,
        spawn: Spawn,
        accepts: Callable[[str | None], bool],
        inside: Callable[[str | None], tuple[str, Receiver]],
        otherwise: Callable[[Tunnel], Holder] | None = None,
    ) -> None:
        self._ends = ends
        self._spawn = spawn
        self._inside = inside
        self._otherwise = otherwise
        self._hello = ends.hello(accepts)

    def look(self, data: bytes, wire: Tunnel) -> Holder | Look:
        """Look at the first bytes until the ClientHello is complete."""
        if not self._hello.take(data):
            return Look.MORE
        if self._hello.alert is not None:
            log.get_logger().debug("TLS refused", name=self._hello.name)
            wire.finish(self._hello.alert)
            return Look.MORE
        if self._hello.offers_h2 and self._otherwise is not None:
            return self._otherwise(wire)
        return Ending(self._ends, self._spawn, wire, *self._inside(self._hello.name))

    def receive(self, request: object, wire: Tunnel) -> Holder | None:
        """No request is read here, only what is inside."""
        raise AssertionError("a TLS connection has no request head of its own")


class Ending:
    """A wire whose TLS is being ended.

    Args:
        ends: ends TLS.
        spawn: runs a coroutine.
        wire: the client's side.
        name: what the certificate is for.
        receiver: gets what is inside.
    """

    def __init__(self, ends: Ends, spawn: Spawn, wire: Tunnel, name: str, receiver: Receiver) -> None:
        self._ends = ends
        self._wire = wire
        self._name = name
        self._receiver = receiver
        self._task = spawn(self._run())

    def client_gone(self) -> None:
        """The client left before TLS was begun."""
        self._wire.finish(b"")
        self._task.cancel()

    async def _run(self) -> None:
        try:
            await self._wire.secure(self._ends.authority.context(self._name), self._receiver)
        except OSError as exc:
            why = getattr(exc, "reason", None) or exc.strerror or type(exc).__name__
            self._ends.complaints.warning("TLS did not come about", name=self._name, why=why, remedy=REMEDY)
