"""The client side: the WebSocket of browsers and the WebSocket class of 4D, in Python, and `explain`.

from interceptor.client import WebSocket

async with WebSocket("wss://example.com/feed") as socket:
    socket.send("hello")
    async for event in socket:
        print(event.data)
"""

from ..exceptions import DOMException
from .blob import Blob
from .link import Diagnosis
from .target import CloseEvent, Event, EventTarget, MessageEvent
from .websocket import BinaryType, WebSocket

__all__ = [
    "BinaryType",
    "Blob",
    "CloseEvent",
    "DOMException",
    "Diagnosis",
    "Event",
    "EventTarget",
    "MessageEvent",
    "WebSocket",
]
