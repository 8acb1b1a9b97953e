"""What every toolkit is put through: a host in a thread, its callbacks on the GUI's, clients that talk to it.

The program of a toolkit hands over its `post`, and how its loop runs and ends. What is wrong raises, so that
the process ends with 1; a clean run prints what was seen.
"""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable

from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from interceptor import Event, Host, Limits, Timeouts, WebSocketReceive, WebSocketUpgrade

ROWS = [("ws://myapp/gate/*", 2), ("ws://myapp/*", 1)]
MESSAGES = 300
PATIENCE = 20.0


def soon(condition: Callable[[], object]) -> None:
    """Wait until something holds that no thread tells of."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.01)


class Conversation:
    """A host whose callbacks run on the thread of a GUI.

    Args:
        post: the toolkit's.
        quit_loop: ends the GUI's loop; called on its thread.
        can_be_gone: whether `post` tells that the GUI is gone.
    """

    def __init__(
        self, post: Callable[[Callable[[], None]], object], quit_loop: Callable[[], None], can_be_gone: bool
    ) -> None:
        self.host = Host(
            ROWS, root="myapp", post=post, limits=Limits(read_buffer=64 * 1024), timeouts=Timeouts(close=3)
        )
        self.post = post
        self.quit_loop = quit_loop
        self.can_be_gone = can_be_gone
        self.gui = threading.get_ident()
        self.wrong: list[str] = []
        self.heard: list[str | bytes] = []
        self.faults: list[BaseException] = []
        self.blocked = threading.Event()
        self.release = threading.Event()
        self.host.on("All")(self.check_thread)
        self.host.on("WebSocketUpgrade")(self.answer)
        self.host.on("WebSocketReceive")(self.receive)

    # Callbacks, which belong on the GUI's thread.

    def check_thread(self, event: Event) -> None:
        if threading.get_ident() != self.gui:
            self.wrong.append(event.event)

    def answer(self, event: WebSocketUpgrade) -> WebSocketUpgrade | None:
        if event.type == "auto":
            return None
        if event.url.endswith("/closed"):
            return event.deny(403, body="members only")
        return event.accept(subprotocol="chat")

    def receive(self, event: WebSocketReceive) -> None:
        self.heard.append(event.data)
        if event.data == "block":
            self.blocked.set()
            assert self.release.wait(PATIENCE)
        self.host.WebSocketSend(event.id, event.data)

    # The clients.

    def run(self, loop: Callable[[], object]) -> None:
        """Run the GUI's loop while clients talk to the host; then see what is left."""
        before = set(threading.enumerate())
        with self.host.in_thread():
            talk = threading.Thread(target=self.talk)
            talk.start()
            loop()
            talk.join(PATIENCE)
            if self.can_be_gone:
                self.expect_gone()
            begun = time.monotonic()
        assert time.monotonic() - begun < PATIENCE, "stop() took as long as that"
        assert not self.faults, self.faults
        assert not self.wrong, f"not on the GUI's thread: {self.wrong}"
        while (left := set(threading.enumerate()) - before - {talk}) and time.monotonic() - begun < PATIENCE:
            time.sleep(0.01)  # The loop's own workers are not waited for.
        assert not left, left
        gc.collect()
        print("ok", len(self.heard))

    def talk(self) -> None:
        try:
            self.talk_in_order()
            self.ask_at_the_gate()
            self.block()
        except BaseException as exc:
            self.faults.append(exc)
            raise
        finally:
            self.post(self.quit_loop)

    def talk_in_order(self) -> None:
        sent = [str(index) for index in range(MESSAGES)]
        with self.open("/one") as one, self.open("/two") as two:
            for text in sent:
                one.send(text)
                two.send(text)
            assert [one.recv(PATIENCE) for _ in sent] == sent
            assert [two.recv(PATIENCE) for _ in sent] == sent

    def ask_at_the_gate(self) -> None:
        with connect(self.host.ws_url("ws://myapp/gate/open"), subprotocols=["chat"]) as socket:  # type: ignore[list-item]
            assert socket.subprotocol == "chat"
        assert self.status("ws://myapp/gate/closed") == 403

    def block(self) -> None:
        """Block the GUI: the socket that floods it is held, and all comes in the end."""
        flood = [bytes([index % 256]) * 4096 for index in range(400)]
        with self.open("/flood") as socket:
            socket.send("block")
            assert self.blocked.wait(PATIENCE)
            sender = threading.Thread(target=self.send_all, args=(socket, flood))
            sender.start()
            (session,) = [each for each in self.host.sockets.values() if each.url.endswith("/flood")]
            # Reading stops above the mark; what it had read by then is all that is kept.
            soon(lambda: session._lane._undelivered > 64 * 1024)
            self.release.set()
            assert socket.recv(PATIENCE) == "block"
            assert [socket.recv(PATIENCE) for _ in flood] == flood
            sender.join(PATIENCE)

    def send_all(self, socket: ClientConnection, pieces: list[bytes]) -> None:
        for piece in pieces:
            socket.send(piece)

    def expect_gone(self) -> None:
        """The GUI's loop has ended: nobody would answer, and the client is told so."""
        assert self.status("ws://myapp/late") == 503
        assert self.status("ws://myapp/gate/open") == 503
        soon(lambda: not self.host.sockets)

    def open(self, path: str) -> ClientConnection:
        return connect(self.host.ws_url(path), compression=None, max_size=None)

    def status(self, url: str) -> int:
        try:
            with connect(self.host.ws_url(url), open_timeout=PATIENCE):
                return 101
        except InvalidStatus as exc:
            return exc.response.status_code
