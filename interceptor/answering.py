"""The answer to an upgrade: the host's own, or what the program gave, checked before a byte is sent."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .events import Event, WebSocketUpgrade
from .exceptions import InvalidAnswer, InvalidArgument
from .handshake import Accepted, Answer, Offer, accept, choose_extensions, read_answer, read_verbatim

__all__ = ["automatic_answer", "program_answer"]


def automatic_answer(offer: Offer, listed: Iterable[str], compression: bool) -> Answer:
    """Make the answer of an automatic handshake.

    Args:
        offer: what the client asks for.
        listed: subprotocols to agree to, the best first.
        compression: agree to permessage-deflate.
    """
    agreed = choose_extensions(offer, compression)
    subprotocol = next((name for name in listed if name in offer.subprotocols), None)
    agreed = Accepted(subprotocol or offer.token_subprotocol, agreed.extensions, agreed.header)
    return Answer(accept(offer, agreed), 101, agreed)


def program_answer(message: object, id: str, offer: Offer) -> Answer:
    """Read the program's answer; callable from any thread.

    Args:
        message: the event with Headers replaced, or its vector.
        id: of the upgrade.
        offer: what the client asks for.

    Raises:
        InvalidAnswer: it is none, is for another ID, or must not be sent.
    """
    event = message if isinstance(message, WebSocketUpgrade) else _read_vector(message)
    if event.id != id:
        raise InvalidAnswer(f"it is for {event.id}; return the event that came, for {id}")
    if isinstance(event.headers, bytes):
        return read_verbatim(event.headers, offer)
    return read_answer(event.headers, offer)


def _read_vector(message: object) -> WebSocketUpgrade:
    if isinstance(message, Event) or not isinstance(message, Sequence) or isinstance(message, str | bytes):
        raise InvalidAnswer(
            f"it is a {type(message).__name__}; return event.accept(), event.deny(), event.answer(text), "
            "or the whole event message with Headers replaced"
        )
    try:
        return WebSocketUpgrade.from_message(message)
    except InvalidArgument as exc:
        raise InvalidAnswer(str(exc)) from exc
