"""Answers to a handshake, right and wrong in every way that we know of, as the bytes that go out.

`ACCEPT` in them stands for the right Sec-WebSocket-Accept.
"""

from __future__ import annotations

from typing import NamedTuple

from interceptor import WebSocketUpgrade

UPGRADE = "Upgrade: websocket\r\n"
CONNECTION = "Connection: Upgrade\r\n"
KEY = "Sec-WebSocket-Accept: ACCEPT\r\n"
FIELDS = UPGRADE + CONNECTION + KEY
SWITCHING = "HTTP/1.1 101 Switching Protocols\r\n"
DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate"

ALL = (True, True, True)
NONE = (False, False, False)


class Case(NamedTuple):
    """An answer, and what comes of it.

    Attributes:
        answer: its text.
        rule: what decides.
        opens: whether Chromium, Firefox and WebKit open it; None where that depends on where it leads.
        asked: subprotocols that are asked for.
    """

    answer: str
    rule: str = "open"
    opens: tuple[bool | None, ...] = ALL
    asked: tuple[str, ...] = ()

    def reply(self, event: WebSocketUpgrade) -> bytes:
        """The bytes for a request."""
        accepted = event.accept(compression=False).headers
        assert isinstance(accepted, str)
        right = accepted.partition("Sec-WebSocket-Accept: ")[2].partition("\r\n")[0]
        text = self.answer.replace("SWAPPED", right.swapcase()).replace("CUT", right[:-2])
        return text.replace("ACCEPT", right).encode("latin-1")


def switching(extra: str = "", fields: str = FIELDS) -> str:
    return f"{SWITCHING}{fields}{extra}\r\n"


def status(line: str, extra: str = "") -> str:
    return f"HTTP/1.1 {line}\r\nContent-Length: 0\r\n{extra}\r\n"


def protocol(*values: str) -> str:
    return switching("".join(f"Sec-WebSocket-Protocol: {value}\r\n" for value in values))


CHAT = ("chat", "superchat")
CASES = {
    # Right, in unusual clothes.
    "right": Case(switching()),
    "Upgrade in capitals": Case(switching(fields=f"Upgrade: WebSocket\r\n{CONNECTION}{KEY}")),
    "Connection in lower case": Case(switching(fields=f"{UPGRADE}Connection: upgrade\r\n{KEY}")),
    "Connection is a list": Case(switching(fields=f"{UPGRADE}Connection: keep-alive, Upgrade\r\n{KEY}")),
    "Connection twice": Case(switching(fields=f"Connection: keep-alive\r\n{FIELDS}")),
    "names in lower case": Case(
        switching(fields="upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-accept: ACCEPT\r\n")
    ),
    "blanks around the value": Case(
        switching(fields=f"{UPGRADE}{CONNECTION}Sec-WebSocket-Accept:   ACCEPT \t \r\n")
    ),
    "another phrase": Case(f"HTTP/1.1 101 Nope\r\n{FIELDS}\r\n"),
    "no phrase": Case(f"HTTP/1.1 101\r\n{FIELDS}\r\n"),
    "lone LF": Case(switching().replace("\r\n", "\n")),
    "a folded line": Case(switching("X-Note: one\r\n two\r\n")),
    "other fields": Case(switching("Server: test\r\nSet-Cookie: a=b\r\n")),
    "Content-Length: 0": Case(switching("Content-Length: 0\r\n")),
    "early hints before": Case(
        "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + switching(), "interim", (False, True, True)
    ),
    "continue before": Case("HTTP/1.1 100 Continue\r\n\r\n" + switching(), "interim", (False, True, True)),
    "HTTP/1.0": Case(switching().replace("HTTP/1.1", "HTTP/1.0")),
    "subprotocol": Case(protocol("chat"), asked=CHAT),
    "the other subprotocol": Case(protocol("superchat"), asked=CHAT),
    "deflate": Case(switching(f"{DEFLATE}\r\n")),
    "deflate with parameters": Case(
        switching(f"{DEFLATE}; server_no_context_takeover; client_max_window_bits=10\r\n")
    ),
    # Sec-WebSocket-Accept
    "wrong Accept": Case(
        switching(fields=f"{UPGRADE}{CONNECTION}Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"),
        "accept",
        NONE,
    ),
    "no Accept": Case(switching(fields=UPGRADE + CONNECTION), "accept", NONE),
    "Accept in other case": Case(
        switching(fields=f"{UPGRADE}{CONNECTION}Sec-WebSocket-Accept: SWAPPED\r\n"), "accept", NONE
    ),
    "Accept cut off": Case(
        switching(fields=f"{UPGRADE}{CONNECTION}Sec-WebSocket-Accept: CUT\r\n"), "accept", NONE
    ),
    "Accept twice": Case(switching(KEY), "accept", NONE),
    # Upgrade and Connection
    "no Upgrade": Case(switching(fields=CONNECTION + KEY), "upgrade", NONE),
    "another Upgrade": Case(switching(fields=f"Upgrade: h2c\r\n{CONNECTION}{KEY}"), "upgrade", NONE),
    "Upgrade is a list": Case(
        switching(fields=f"Upgrade: websocket, h2c\r\n{CONNECTION}{KEY}"), "upgrade", NONE
    ),
    "Upgrade twice": Case(switching(UPGRADE), "upgrade", NONE),
    "no Connection": Case(switching(fields=UPGRADE + KEY), "connection", NONE),
    "Connection: close": Case(switching(fields=f"{UPGRADE}Connection: close\r\n{KEY}"), "connection", NONE),
    # Subprotocols
    "asked, none": Case(switching(), "subprotocol-missing", (False, True, True), CHAT),
    "asked, empty": Case(protocol(""), "subprotocol-missing", (False, True, True), CHAT),
    "asked, another": Case(protocol("other"), "subprotocol-unasked", (False, True, False), CHAT),
    "asked, in other case": Case(protocol("Chat"), "subprotocol-unasked", (False, True, False), CHAT),
    "asked, a list": Case(protocol("chat, superchat"), "subprotocol-unasked", (False, True, False), CHAT),
    "asked, twice": Case(protocol("chat", "chat"), "subprotocol-repeated", NONE, CHAT),
    "not asked, one": Case(protocol("chat"), "subprotocol-unasked", (False, True, False)),
    "not asked, empty": Case(protocol(""), "subprotocol-unasked", (False, True, False)),
    # Extensions
    "an unknown extension": Case(switching("Sec-WebSocket-Extensions: x-mux\r\n"), "extension", NONE),
    "deflate and more": Case(switching(f"{DEFLATE}, x-mux\r\n"), "extension", NONE),
    "deflate twice": Case(switching(f"{DEFLATE}, permessage-deflate\r\n"), "extension", NONE),
    "deflate, a parameter of its own": Case(switching(f"{DEFLATE}; x=1\r\n"), "extension", NONE),
    "deflate, too many bits": Case(switching(f"{DEFLATE}; server_max_window_bits=99\r\n"), "extension", NONE),
    "deflate, bits without a number": Case(
        switching(f"{DEFLATE}; client_max_window_bits\r\n"), "extension", NONE
    ),
    "an empty extension": Case(switching("Sec-WebSocket-Extensions:\r\n"), "extension", NONE),
    "malformed extensions": Case(switching("Sec-WebSocket-Extensions: ;;\r\n"), "extension", NONE),
    # Other statuses
    "200": Case(status("200 OK"), "status", NONE),
    "204": Case("HTTP/1.1 204 No Content\r\n\r\n", "status", NONE),
    "400": Case(status("400 Bad Request"), "status", NONE),
    "403": Case(status("403 Forbidden"), "status", NONE),
    "404": Case(status("404 Not Found"), "status", NONE),
    "426": Case(status("426 Upgrade Required", UPGRADE + CONNECTION), "status", NONE),
    "500": Case(status("500 Internal Server Error"), "status", NONE),
    "503": Case(status("503 Service Unavailable", "Retry-After: 1\r\n"), "status", NONE),
    "200 with the fields of a 101": Case(status("200 OK", FIELDS), "status", NONE),
    "401": Case(status("401 Unauthorized", "WWW-Authenticate: Basic\r\n"), "authentication", NONE),
    "407": Case(status("407 Proxy Authentication Required"), "authentication", NONE),
    "301": Case(status("301 Moved", "Location: /other\r\n"), "redirect", (False, False, None)),
    "302": Case(status("302 Found", "Location: /other\r\n"), "redirect", (False, False, None)),
    "307": Case(status("307 Temporary", "Location: ws://x.test/\r\n"), "redirect", (False, False, None)),
    "302 without Location": Case(status("302 Found"), "status", NONE),
    # No HTTP, or not quite
    "nothing": Case("", "network", NONE),
    "half a head": Case(SWITCHING + UPGRADE, "network", NONE),
    "other words": Case("SSH-2.0-OpenSSH_9.2\r\n\r\n", "malformed", NONE),
    "a status that is no number": Case("HTTP/1.1 abc\r\n\r\n", "malformed", NONE),
    "a line without a colon": Case(switching("nonsense\r\n"), "odd", (True, None, None)),
    "a blank before the colon": Case(
        switching(fields=f"Upgrade : websocket\r\n{CONNECTION}{KEY}"), "odd", (True, None, None)
    ),
    "a NUL": Case(switching("X: a\0b\r\n"), "malformed", NONE),
}
