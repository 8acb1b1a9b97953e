"""interceptor: a Python program answers the WebSockets that the pages of a browser component open.

from interceptor import Host

host = Host([("ws://myapp/*", 1)], root="myapp")

@host.on("WebSocketReceive")
def echo(event):
    host.WebSocketSend(event.id, event.data)
"""

from .callbacks import EventName
from .config import Limits, Security, Timeouts, Tls
from .events import (
    AnyEvent,
    Event,
    HTTPRequest,
    WebSocketClose,
    WebSocketError,
    WebSocketReceive,
    WebSocketUpgrade,
)
from .exceptions import (
    DOMException,
    InterceptorError,
    InvalidAnswer,
    InvalidArgument,
    InvalidHandler,
    InvalidRule,
    InvalidState,
    SocketClosed,
    UnknownEvent,
    UnknownSocket,
    UnsupportedType,
)
from .host import Host
from .patterns import InterceptedURLs, Mode, Rule
from .session import Session
from .state import State
from .threaded import ThreadedHost

__version__ = "0.1.0"

__all__ = [
    "AnyEvent",
    "DOMException",
    "Event",
    "EventName",
    "HTTPRequest",
    "Host",
    "InterceptedURLs",
    "InterceptorError",
    "InvalidAnswer",
    "InvalidArgument",
    "InvalidHandler",
    "InvalidRule",
    "InvalidState",
    "Limits",
    "Mode",
    "Rule",
    "Security",
    "Session",
    "SocketClosed",
    "State",
    "ThreadedHost",
    "Timeouts",
    "Tls",
    "UnknownEvent",
    "UnknownSocket",
    "UnsupportedType",
    "WebSocketClose",
    "WebSocketError",
    "WebSocketReceive",
    "WebSocketUpgrade",
]
