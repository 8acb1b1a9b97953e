"""A manual handshake: who has no name and password gets a 401, who has the wrong ones a 403.

    python examples/login.py

prints a URL with a right login in it; `python -m websockets "<the URL>"` connects. Change the password in
the URL and see what comes back.

A page cannot set the Authorization field of a WebSocket: it would log in by HTTP first and send a cookie,
which `event.cookies` has.
"""

import asyncio
import base64
import hmac

from interceptor import Host, WebSocketClose, WebSocketReceive, WebSocketUpgrade

USERS = {"ann": "correct horse"}
CHALLENGE = "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=notes\r\n\r\nWho are you?"

host = Host([("ws://notes/*", 2)], root="notes")
names: dict[str, str] = {}


@host.on("WebSocketUpgrade")
def answer(event: WebSocketUpgrade) -> WebSocketUpgrade:
    login = event.header("Authorization")
    if login is None:
        return event.answer(CHALLENGE)
    name, password = decode(login)
    # The time that the comparison takes must not tell how much of a password was right.
    if not hmac.compare_digest(USERS.get(name, "").encode(), password.encode()) or name not in USERS:
        return event.deny(403, "This is not your password.")
    names[event.id] = name
    return event.accept()


@host.on("WebSocketReceive")
def reply(event: WebSocketReceive) -> None:
    host.WebSocketSend(event.id, f"{names[event.id]} wrote: {event.data!r}")


@host.on("WebSocketClose")
def forget(event: WebSocketClose) -> None:
    names.pop(event.id, None)


def decode(login: str) -> tuple[str, str]:
    """Read `Basic <base64 of name:password>`; anything else is nobody."""
    try:
        name, _, password = base64.b64decode(login.removeprefix("Basic ")).decode().partition(":")
    except ValueError:
        return "", ""
    return name, password


async def main() -> None:
    async with host:
        print(host.ws_url("/").replace("ws://", "ws://ann:correct%20horse@"), flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        print("stopped")
