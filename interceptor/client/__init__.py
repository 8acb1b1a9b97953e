"""The client side: the WebSocket of browsers and the WebSocket class of 4D, in Python, and `explain`.

from interceptor.client import WebSocket

async with WebSocket("wss://example.com/feed") as socket:
    socket.send("hello")
    async for event in socket:
        print(event.data)
"""

from ..exceptions import DOMException
from .blob import Blob
from .explanation import Explanation, explain
from .handlers import HandlerError, HandlerEvent, WebSocketClient, connect_handler
from .link import Diagnosis
from .target import CloseEvent, Event, EventTarget, MessageEvent
from .verdicts import Verdict
from .websocket import BinaryType, WebSocket

__all__ = [
    "BinaryType",
    "Blob",
    "CloseEvent",
    "DOMException",
    "Diagnosis",
    "Event",
    "EventTarget",
    "Explanation",
    "HandlerError",
    "HandlerEvent",
    "MessageEvent",
    "Verdict",
    "WebSocket",
    "WebSocketClient",
    "connect_handler",
    "explain",
]
