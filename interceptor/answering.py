"""The answer to an upgrade: the host's own, or what the program gave, checked before a byte is sent."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .events import TOKEN_PREFIX, Event, WebSocketUpgrade
from .exceptions import InvalidAnswer, InvalidArgument
from .handshake import Accepted, Answer, Offer, accept, choose_extensions, read_answer, read_verbatim

__all__ = ["agree", "own_subprotocol", "program_answer", "usual_answer"]


def agree(offer: Offer, compression: bool, listed: Iterable[str] = ()) -> Accepted:
    """Choose what the host agrees to.

    Args:
        offer: what the client asks for.
        compression: agree to permessage-deflate.
        listed: subprotocols to agree to, the best first.
    """
    agreed = choose_extensions(offer, compression)
    subprotocol = next((name for name in listed if name in offer.subprotocols), None)
    return Accepted(subprotocol or offer.token_subprotocol, agreed.extensions, agreed.header)


def own_subprotocol(name: str | None) -> str | None:
    """Return the subprotocol that was agreed on as the program knows it: one with the token is none."""
    return None if name is None or name.startswith(TOKEN_PREFIX) else name


def usual_answer(offer: Offer, agreed: Accepted) -> Answer:
    """Make the 101 that agrees to an offer, and says nothing else."""
    return Answer(accept(offer, agreed), 101, agreed)


def program_answer(message: object, id: str, offer: Offer, usual: str, compression: bool) -> Answer:
    """Read the program's answer; callable from any thread.

    Args:
        message: the event with Headers replaced, or its vector.
        id: of the upgrade.
        offer: what the client asks for.
        usual: the 101 of `usual_answer` without listed subprotocols, which need not be checked.
        compression: as it was made with.

    Raises:
        InvalidAnswer: it is none, is for another ID, or must not be sent.
    """
    event = message if isinstance(message, WebSocketUpgrade) else _read_vector(message)
    if event.id != id:
        raise InvalidAnswer(f"it is for {event.id}; return the event that came, for {id}")
    if isinstance(event.headers, bytes):
        return read_verbatim(event.headers, offer)
    if event.headers == usual:
        return Answer(usual.encode("ascii"), 101, agree(offer, compression))
    return read_answer(event.headers, offer)


def _read_vector(message: object) -> WebSocketUpgrade:
    if isinstance(message, Event) or not isinstance(message, Sequence) or isinstance(message, str | bytes):
        raise InvalidAnswer(
            f"it is of type {type(message).__name__}; return event.accept(), event.deny(), "
            "event.answer(text), or the whole event message with Headers replaced"
        )
    try:
        return WebSocketUpgrade.from_message(message)
    except InvalidArgument as exc:
        raise InvalidAnswer(
            f"{type(message).__name__} is read as an event message: {exc}; return event.accept() or "
            "event.deny(status, body)"
        ) from exc
