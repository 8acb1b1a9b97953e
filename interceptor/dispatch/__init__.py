"""Who is told of an event, in which order, and on which thread.

    Lane ──► plain callbacks, at once          each socket has a lane: one event at a time, in order
         ──► async callbacks, in a task        a plain callback costs no task, future or queue
         ──► the stream of host.events()       where there is no callback
         ──► Crossing: post, dq()              plain callbacks on the program's own thread

What waits in a lane is counted; above the mark the lane asks its owner to hold the socket.
"""

from .crossing import Post
from .dispatcher import Dispatcher
from .dq import EVENT_COST
from .handlers import Callback, Handler, check_handler, is_async
from .lane import Lane
from .thread import HomeLoop, LoopFactory, LoopThread

__all__ = [
    "EVENT_COST",
    "Callback",
    "Dispatcher",
    "Handler",
    "HomeLoop",
    "Lane",
    "LoopFactory",
    "LoopThread",
    "Post",
    "check_handler",
    "is_async",
]
