"""The opening handshake, without I/O: the server's side here, the client's in `handshake.client`."""

from .server import (
    Accepted,
    Answer,
    HeadReader,
    Offer,
    Request,
    accept,
    check_body,
    check_request,
    choose_extensions,
    final_answer,
    read_answer,
    read_offer,
    read_request,
    read_verbatim,
    refusal,
)

__all__ = [
    "Accepted",
    "Answer",
    "HeadReader",
    "Offer",
    "Request",
    "accept",
    "check_body",
    "check_request",
    "choose_extensions",
    "final_answer",
    "read_answer",
    "read_offer",
    "read_request",
    "read_verbatim",
    "refusal",
]
