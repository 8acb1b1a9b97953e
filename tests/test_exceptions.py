from __future__ import annotations

import inspect
import pickle
import re

import pytest

import interceptor
from interceptor import exceptions
from interceptor.exceptions import (
    ConnectFailure,
    DOMException,
    HandshakeFailure,
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

TREE = {
    InterceptorError: (Exception,),
    InvalidArgument: (InterceptorError, ValueError),
    InvalidRule: (InvalidArgument,),
    UnknownEvent: (InvalidArgument,),
    InvalidAnswer: (InvalidArgument,),
    UnsupportedType: (InterceptorError, TypeError),
    InvalidHandler: (UnsupportedType,),
    UnknownSocket: (InterceptorError, LookupError),
    InvalidState: (InterceptorError, RuntimeError),
    DOMException: (InterceptorError,),
    HandshakeFailure: (InterceptorError,),
    ConnectFailure: (InterceptorError,),
    SocketClosed: (InterceptorError,),
}

# Neither reaches the program: the one goes to a client as an answer, the other into a diagnosis.
INTERNAL = {"HandshakeFailure", "ConnectFailure"}


def defined() -> set[type[BaseException]]:
    members = vars(exceptions).values()
    return {member for member in members if inspect.isclass(member) and issubclass(member, BaseException)}


def test_the_tree_is_complete() -> None:
    assert defined() == set(TREE)
    assert sorted(exceptions.__all__) == exceptions.__all__ == sorted(cls.__name__ for cls in TREE)


@pytest.mark.parametrize("cls", TREE)
def test_each_error_has_its_bases(cls: type[BaseException]) -> None:
    assert cls.__bases__ == TREE[cls]
    assert cls.__doc__


@pytest.mark.parametrize("cls", set(TREE) - {InterceptorError})
def test_the_drawing_shows_each_error_under_its_parent(cls: type[BaseException]) -> None:
    lines = (exceptions.__doc__ or "").split("\n")
    drawn = [number for number, line in enumerate(lines) if re.search(rf"─ {cls.__name__}\b", line)]
    assert len(drawn) == 1
    line = lines[drawn[0]]
    for foreign in TREE[cls][1:]:
        assert f"{cls.__name__} ({foreign.__name__})" in line
    if TREE[cls][0] is not InterceptorError:
        depth = line.index("─ ")
        above = next(other for other in reversed(lines[: drawn[0]]) if other.index("─ ") < depth)
        assert f"─ {TREE[cls][0].__name__} " in above


def test_the_package_shows_what_a_program_may_catch() -> None:
    public = {cls.__name__ for cls in TREE} - INTERNAL
    assert public <= set(interceptor.__all__)
    assert all(getattr(interceptor, name) is getattr(exceptions, name) for name in public)
    assert not INTERNAL & set(interceptor.__all__)


def test_an_invalid_rule_names_its_row_or_none() -> None:
    named, unnamed = InvalidRule("no such mode", 3), InvalidRule("no such mode")
    assert (str(named), named.row) == ("row 3 of InterceptedURLs: no such mode", 3)
    assert (str(unnamed), unnamed.row) == ("no such mode", None)
    assert str(InvalidRule("no such mode", 0)) == "row 0 of InterceptedURLs: no such mode"


def test_an_unknown_socket_names_its_id_and_why() -> None:
    error = UnknownSocket("0123456789abcde")
    assert (str(error), error.id) == ("'0123456789abcde': no open socket has this ID", "0123456789abcde")
    assert (
        str(UnknownSocket("x", "the socket is CLOSING, not open")) == "'x': the socket is CLOSING, not open"
    )


def test_a_long_id_is_not_repeated_whole() -> None:
    error = UnknownSocket("x" * 9999)
    assert (len(str(error)) < 200, error.id) == (True, "x" * 9999)


def test_a_handshake_failure_carries_the_answer() -> None:
    bare = HandshakeFailure(400, "no key")
    assert (str(bare), bare.status, bare.reason, bare.headers) == ("400: no key", 400, "no key", ())
    allow = (("Allow", "GET"),)
    assert HandshakeFailure(405, "use GET", allow).headers == allow


def test_a_dom_exception_carries_the_name_of_the_standard() -> None:
    error = DOMException("no such URL", "SyntaxError")
    assert (str(error), error.name, error.message) == (
        "SyntaxError: no such URL",
        "SyntaxError",
        "no such URL",
    )
    assert not isinstance(error, SyntaxError)
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.name, copy.message) == (error.name, error.message)
    assert (DOMException().name, DOMException().message) == ("Error", "")


def test_a_connect_failure_carries_its_rule() -> None:
    error = ConnectFailure("upgrade", "Upgrade is missing", "upgrade")
    assert (str(error), error.rule, error.reason) == ("Upgrade is missing", "upgrade", "Upgrade is missing")
    assert (error.field, ConnectFailure("timeout", "too slow").field) == ("upgrade", "")


def test_a_closed_socket_carries_code_and_reason() -> None:
    bare = SocketClosed(1006)
    assert (str(bare), bare.code, bare.reason) == ("the socket ended with 1006", 1006, "")
    error = SocketClosed(4001, "bye")
    assert (str(error), error.code, error.reason) == ("the socket ended with 4001 (bye)", 4001, "bye")


@pytest.mark.parametrize("cls", [InvalidArgument, UnknownEvent, InvalidAnswer, UnsupportedType, InvalidState])
def test_an_error_with_words_only_goes_between_processes(cls: type[InterceptorError]) -> None:
    copy = pickle.loads(pickle.dumps(cls("the words")))
    assert type(copy) is cls
    assert str(copy) == "the words"
