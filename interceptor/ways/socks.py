"""SOCKS5 without authentication (RFC 1928): another way to ask for a tunnel."""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple

from ..exceptions import HandshakeFailure
from .dial import Target
from .listener import Holder, Look, Tunnel
from .proxy import Proxy

__all__ = ["VERSION", "Socks"]

VERSION = 5
"""First byte of everything that a SOCKS5 client says."""

NO_AUTHENTICATION, NO_METHOD = 0, 0xFF
CONNECT = 1
IPV4, NAME, IPV6 = 1, 3, 4
SUCCEEDED, FAILED, NOT_ALLOWED, UNREACHABLE, BAD_COMMAND, BAD_ADDRESS = 0, 1, 2, 4, 7, 8
STATUS_REPLIES = {403: NOT_ALLOWED, 508: NOT_ALLOWED, 502: UNREACHABLE, 504: UNREACHABLE}
HOST_NAME = re.compile(rb"[^\x00-\x20\x7f-\xff\[\]:/?#@\\]+")


class Asked(NamedTuple):
    """A complete request: where to, and how many bytes it had."""

    target: Target
    size: int


class Refused(Exception):
    """A request that cannot be met, with the reply's number."""


class Socks:
    """Receives a SOCKS5 client from its first byte on, before or after the greeting.

    Args:
        proxy: opens tunnels.
        greeted: whether the client has been greeted.
    """

    def __init__(self, proxy: Proxy, greeted: bool = False) -> None:
        self._proxy = proxy
        self._greeted = greeted

    def look(self, data: bytes, wire: Tunnel) -> Holder | Look:
        """Take the greeting (section 3), or the request (section 4), once it is complete."""
        return self._take_request(data, wire) if self._greeted else self._greet(data, wire)

    def receive(self, request: object, wire: Tunnel) -> Holder | None:
        """No request head is read here."""
        raise AssertionError("a SOCKS connection has no request head of its own")

    def _greet(self, data: bytes, wire: Tunnel) -> Look:
        if len(data) < 2 or len(data) < 2 + data[1]:
            return Look.MORE
        size = 2 + data[1]
        if NO_AUTHENTICATION in data[2:size]:
            wire.drop(size)
            wire.look_inside(bytes((VERSION, NO_AUTHENTICATION)), Socks(self._proxy, greeted=True))
        else:
            wire.finish(bytes((VERSION, NO_METHOD)))
        return Look.MORE

    def _take_request(self, data: bytes, wire: Tunnel) -> Holder | Look:
        try:
            asked = read_request(data)
            if asked is None:
                return Look.MORE
            wire.drop(asked.size)
            return self._proxy.tunnel(asked.target, wire, reply(SUCCEEDED), _reply_to) or Look.MORE
        except Refused as refused:
            wire.finish(reply(refused.args[0]))
        except HandshakeFailure as failure:
            wire.finish(_reply_to(failure))
        return Look.MORE


def read_request(data: bytes) -> Asked | None:
    """Read a request (RFC 1928 section 4); None while it is not complete.

    Raises:
        Refused: it asks for what there is not, or for no valid address.
    """
    if len(data) < 5:
        return None
    if data[0] != VERSION:
        raise Refused(FAILED)
    if data[1] != CONNECT:
        raise Refused(BAD_COMMAND)
    sizes = {IPV4: 4, IPV6: 16, NAME: 1 + data[4]}
    if data[3] not in sizes:
        raise Refused(BAD_ADDRESS)
    end = 4 + sizes[data[3]]
    if len(data) < end + 2:
        return None
    port = int.from_bytes(data[end : end + 2], "big")
    return Asked(Target(_read_host(data[3], data[4:end]), _checked(port)), end + 2)


def reply(number: int) -> bytes:
    """Write a reply (section 6); of the address that it names nobody makes use."""
    return bytes((VERSION, number, 0, IPV4, 0, 0, 0, 0, 0, 0))


def _read_host(kind: int, data: bytes) -> str:
    if kind == IPV4:
        return str(ipaddress.IPv4Address(data))
    if kind == IPV6:
        return f"[{ipaddress.IPv6Address(data)}]"
    if not HOST_NAME.fullmatch(data[1:]):
        raise Refused(FAILED)
    return data[1:].decode("ascii").lower()


def _checked(port: int) -> int:
    if port == 0:
        raise Refused(FAILED)
    return port


def _reply_to(failure: HandshakeFailure) -> bytes:
    return reply(STATUS_REPLIES.get(failure.status, FAILED))
