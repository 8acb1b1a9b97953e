"""The table of sessions: what the ways in and the sessions know of their host."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping

from . import log
from .config import Settings
from .dispatch import Dispatcher
from .events import Named
from .exceptions import HandshakeFailure, UnknownSocket
from .frames import Shared
from .patterns import InterceptedURLs, Mode
from .payload import Data, to_payload
from .session import Session
from .state import State

__all__ = ["Sessions"]


class Sessions:
    """The table of sessions; what a way in and a session know of their host.

    Attributes:
        object: the host.
        settings: what it was told.
        dispatcher: delivers events.
        table: the rules that count now.
        open: sockets by ID, until their end was reported.
        pending: upgrades that wait for the program's answer, by ID.
        complaints: warnings of what strangers do.
    """

    def __init__(
        self, host: Named, settings: Settings, dispatcher: Dispatcher, table: InterceptedURLs
    ) -> None:
        self.object = host
        self.settings = settings
        self.dispatcher = dispatcher
        self.table = table
        self.pending: dict[str, Session] = {}
        self._open: dict[str, Session] = {}
        self._promised: dict[str, Session] = {}
        self.open: Mapping[str, Session] = Snapshots(self._open)
        dispatcher.when_lost = self._refuse_all
        self._untold = {False: 0, True: 0}  # Failures; those of whom was let in apart.
        self._ending = False
        self.complaints = log.Seldom()

    def find(self, id: str) -> Session:
        """Return an open socket.

        Raises:
            UnknownSocket: the ID is not open.
        """
        try:
            return self._open[id]
        except KeyError:
            return self._find_promised(id)
        except TypeError:
            raise UnknownSocket(id) from None

    def _find_promised(self, id: str) -> Session:
        """Return a socket that another thread than the loop's has answered, and the loop has not come to."""
        with self.dispatcher.changing:
            # Between two looks the loop may have opened it.
            session = self._promised.get(id) or self._open.get(id)
        if session is not None:
            return session
        pending = self.pending.get(id)
        if pending is not None and pending.is_refused:
            raise UnknownSocket(id, "its upgrade was denied, or its answer was not valid, so it never opens")
        if pending is not None:
            raise UnknownSocket(
                id,
                "its handshake is not answered, so the socket is not open yet; call "
                "host.answer(event.id, event.accept()) first and return None, or send after the callback",
            )
        raise UnknownSocket(id)

    def broadcast(self, ids: Iterable[str], data: Data) -> int:
        """Send one message to the sockets of these IDs that are open; return how many they are."""
        message = Shared(*to_payload(data, None))
        here, count = self.dispatcher.may_act(), 0
        elsewhere: list[Session] = []
        for id in tuple(ids):
            try:
                session = self.find(id)
                if not session.is_usable:
                    session.send_soon(data)  # It says what is wrong with it, or the loop has yet to open it.
                elif here:
                    session.outgoing.send_shared(message)
                elif session.outgoing.leave_shared(message):
                    elsewhere.append(session)
            except UnknownSocket:
                continue
            count += 1
        if elsewhere:
            self.dispatcher.run(_send_shared, elsewhere, message)
        return count

    def admit(self, mode: Mode) -> None:
        """Check that there is room for one more session.

        Raises:
            HandshakeFailure: 503.
        """
        limits = self.settings.limits
        if self._ending:
            raise HandshakeFailure(503, "this host is stopping")
        if len(self._open) + len(self.pending) >= limits.sockets:
            raise HandshakeFailure(503, f"this host has {limits.sockets} open sockets (Limits.sockets)")
        if mode is Mode.MANUAL and len(self.pending) >= limits.pending:
            raise HandshakeFailure(503, f"{limits.pending} upgrades wait for an answer (Limits.pending)")
        if self._untold[True] >= limits.pending:
            raise HandshakeFailure(503, f"{limits.pending} failed upgrades are not told yet (Limits.pending)")
        self.check_program()

    def check_program(self) -> None:
        """Check that the program can be asked.

        Raises:
            HandshakeFailure: 503.
        """
        crossing = self.dispatcher.crossing
        if self._ending:
            raise HandshakeFailure(503, "this host is stopping")
        if crossing is not None and not crossing.is_there():
            raise HandshakeFailure(503, "the program's own thread is gone")

    @property
    def tells_refusals(self) -> bool:
        """Whether there is room for one more refusal that the program is not told of yet."""
        return self._untold[False] < self.settings.limits.pending

    def failure_begun(self, admitted: bool) -> None:
        """An upgrade failed; the program is to be told."""
        self._untold[admitted] += 1

    def failure_told(self, session: Session, admitted: bool) -> None:
        """The program was told of a failed upgrade."""
        self._untold[admitted] -= 1
        self._promised.pop(session.id, None)

    def session_begun(self, session: Session) -> None:
        """A session waits for the program's answer."""
        self.pending[session.id] = session

    def session_promised(self, session: Session) -> None:
        """A session was answered, on another thread, and the loop has not come to that; with the lock."""
        self._promised[session.id] = session

    def session_opened(self, session: Session) -> None:
        """A session is an open socket."""
        self.pending.pop(session.id, None)
        self._open[session.id] = session
        self._promised.pop(session.id, None)

    def session_over(self, session: Session) -> None:
        """Nothing more comes of a session."""
        self.pending.pop(session.id, None)
        self._open.pop(session.id, None)

    async def end_all(self, deadline: float) -> None:
        """Refuse what waits, and close what is open; drop what has not ended at the deadline."""
        self._ending = True
        self._refuse_pending("this host is stopping", "the host was stopped before it was answered")
        sessions = self._close_open()
        if sessions:
            patience = max(0, deadline - self.dispatcher.loop.time())
            await asyncio.wait([session.ended for session in sessions], timeout=patience)
        for session in sessions:
            session.abort("the host was stopped, and the peer did not answer the close")

    def _refuse_all(self) -> None:
        """The program's thread is gone: nobody will answer."""
        self._refuse_pending("the program's own thread is gone", "post raised; the program's thread is gone")
        self._close_open()

    def _refuse_pending(self, reason: str, text: str) -> None:
        for session in list(self.pending.values()):
            session.fail(HandshakeFailure(503, reason), text)

    def _close_open(self) -> list[Session]:
        sessions = [session for session in self._open.values() if session.state is not State.CLOSED]
        for session in sessions:
            session.close_soon(1001)
        return sessions


def _send_shared(sessions: list[Session], message: Shared) -> None:
    for session in sessions:
        session.outgoing.arrive_shared(message)


class Snapshots(Mapping[str, Session]):
    """A table that any thread may go through while another one changes it."""

    def __init__(self, table: dict[str, Session]) -> None:
        self._table = table

    def __getitem__(self, id: str) -> Session:
        return self._table[id]

    def __contains__(self, id: object) -> bool:
        return id in self._table

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._table))

    def __len__(self) -> int:
        return len(self._table)

    def __repr__(self) -> str:
        return repr(self._table.copy())
