from __future__ import annotations

import base64
import enum
import json
import pickle
from types import SimpleNamespace
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from interceptor.events import (
    EVENTS,
    AnyEvent,
    Event,
    HTTPRequest,
    WebSocketClose,
    WebSocketError,
    WebSocketReceive,
    WebSocketUpgrade,
    close_event,
    event_class,
    read_event,
    receive_event,
    upgrade_event,
)
from interceptor.exceptions import InvalidArgument, UnknownEvent
from tests.peer import request

ID = "0123456789abcde"
HEAD = request("/chat", "myapp", origin="http://myapp", extra="X-Way: a\r\nx-way: b\r\n").decode()
PAGE = ("ProcessRequest", 1, 404, "Not Found", "text/html", "http://r/x", "Host: r\r\n", "gone", "GET")

PUBLISHED: list[tuple[type[Event], int, dict[str, Any], list[object]]] = [
    (
        HTTPRequest,
        840,
        {"handle": 1, "status": 404, "status_text": "Not Found", "mime": "text/html", "url": "http://r/x"}
        | {"headers": "Host: r\r\n", "body": "gone", "method": "GET"},
        list(PAGE),
    ),
    (
        WebSocketUpgrade,
        841,
        {"id": ID, "url": "ws://myapp/chat", "headers": HEAD, "type": "manual"},
        [ID, "ws://myapp/chat", HEAD, "manual"],
    ),
    (WebSocketReceive, 842, {"id": ID, "data": "héllo", "datatype": 1}, [ID, "héllo", 1, 1]),
    (
        WebSocketReceive,
        842,
        {"id": ID, "data": b"\xff\x00", "fin": False, "datatype": 2},
        [ID, b"\xff\x00", 0, 2],
    ),
    (WebSocketClose, 843, {"id": ID, "code": 1001, "reason": "away"}, [ID, 1001, "away"]),
    (WebSocketError, 844, {"id": ID, "text": "lost"}, [ID, "lost"]),
]
each_event = pytest.mark.parametrize(("cls", "number", "fields", "elements"), PUBLISHED)


class Place:
    """Something with a name, as a Host is."""

    name = "here"


class Side(enum.Enum):
    """Things with a name that are the same ones in another process."""

    SERVER = 1


def upgrade(headers: str | bytes = HEAD) -> WebSocketUpgrade:
    return WebSocketUpgrade(object=Place(), id=ID, url="ws://myapp/chat", headers=headers, type="manual")


# Numbers, names, vectors


def test_the_published_numbers_and_names() -> None:
    assert [(cls.number, cls.__name__) for cls in EVENTS] == [
        (840, "HTTPRequest"),
        (841, "WebSocketUpgrade"),
        (842, "WebSocketReceive"),
        (843, "WebSocketClose"),
        (844, "WebSocketError"),
    ]


@each_event
def test_a_vector_is_written_with_the_name_or_the_number(
    cls: type[Event], number: int, fields: dict[str, Any], elements: list[object]
) -> None:
    event = cls(object=Place(), **fields)
    assert event.message() == ["here", cls.__name__, *elements]
    assert event.message(numeric=True) == ["here", number, *elements]
    assert [type(element) for element in event.message()[2:]] == [type(element) for element in elements]


@each_event
def test_a_vector_is_read_with_the_name_or_the_number(
    cls: type[Event], number: int, fields: dict[str, Any], elements: list[object]
) -> None:
    for reader in (Event, cls):
        for which in (number, cls.__name__, str(number), cls):
            for sequence in (list, tuple):
                event = reader.from_message(sequence(["here", which, *elements]))
                assert event == cls(object="here", **fields)
                assert type(event) is cls


@each_event
def test_an_event_goes_through_json_and_back(
    cls: type[Event], number: int, fields: dict[str, Any], elements: list[object]
) -> None:
    text = cls(object=Place(), **fields).model_dump_json()
    plain = json.loads(text)
    assert (plain["event"], plain["object"]) == (cls.__name__, "here")
    again = cls(object="here", **fields)
    assert read_event(text) == read_event(text.encode()) == cls.model_validate_json(text) == again
    adapter: TypeAdapter[Event] = TypeAdapter(AnyEvent)
    assert adapter.validate_json(text) == again
    assert adapter.dump_json(again) == text.encode()


@each_event
def test_an_event_is_frozen_and_takes_no_more_fields(
    cls: type[Event], number: int, fields: dict[str, Any], elements: list[object]
) -> None:
    event = cls(object="here", **fields)
    for name in cls.model_fields:
        with pytest.raises(ValidationError, match="frozen"):
            setattr(event, name, getattr(event, name))
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        cls(object="here", **fields | {"more": 1})
    assert hash(event) == hash(cls(object="here", **fields))


@each_event
def test_a_vector_of_another_event_is_refused(
    cls: type[Event], number: int, fields: dict[str, Any], elements: list[object]
) -> None:
    for other in set(EVENTS) - {cls}:
        with pytest.raises(UnknownEvent, match=f"the message is of {cls.__name__}, not of {other.__name__}"):
            other.from_message(["here", number, *elements])


@each_event
def test_a_vector_has_just_its_elements(
    cls: type[Event], number: int, fields: dict[str, Any], elements: list[object]
) -> None:
    right = ["here", number, *elements]
    for wrong in ([*right, 0], right[:-1], right[:2]):
        with pytest.raises(InvalidArgument) as caught:
            Event.from_message(wrong)
        text = str(caught.value)
        assert f"a message of {cls.__name__} has {len(right)} elements (Object, Event, " in text
        assert f"; this one has {len(wrong)}" in text
        assert all(name in text for name in cls.vector_fields)


@pytest.mark.parametrize(
    "vector", [[], ["here"], (), "WebSocketClose", b"WebSocketClose", None, 843, {"a": 1}]
)
def test_what_is_no_vector_is_refused(vector: Any) -> None:
    with pytest.raises(
        InvalidArgument, match="is no event message; it starts with Object and Event"
    ) as caught:
        Event.from_message(vector)
    assert repr(vector) in str(caught.value)


@pytest.mark.parametrize("callback", [print, [].append, lambda event: None])
def test_a_callback_in_the_place_of_an_event(callback: object) -> None:
    with pytest.raises(UnknownEvent, match=r'write @host\.on\("WebSocketReceive"\)'):
        event_class(callback)


@pytest.mark.parametrize("which", [839, 845, "All", "websocketclose", None, [], {}, True, Event, str, b"840"])
def test_what_is_no_event_is_refused(which: object) -> None:
    with pytest.raises(UnknownEvent) as caught:
        Event.from_message(["here", which, ID])
    with pytest.raises(UnknownEvent):
        event_class(which)
    assert str(caught.value).startswith(f"{which!r} is no event; there are HTTPRequest (840), ")
    assert "WebSocketError (844), and 'All'" in str(caught.value)


@pytest.mark.parametrize("cls", EVENTS)
def test_an_event_class_is_found_by_class_name_and_number(cls: type[Event]) -> None:
    for which in (cls, cls.__name__, cls.number, str(cls.number)):
        assert event_class(which) is cls


@pytest.mark.parametrize(
    ("elements", "named"),
    [
        ([842, "short", "x", 1, 1], "id"),
        ([842, ID.upper(), "x", 1, 1], "id"),
        ([842, ID + "f", "x", 1, 1], "id"),
        ([842, ID + "\n", "x", 1, 1], "id"),
        ([842, ID, 5, 1, 1], "data"),
        ([842, ID, None, 1, 1], "data"),
        ([842, ID, "x", 2, 1], "fin"),
        ([842, ID, "x", 1, 3], "datatype"),
        ([842, ID, "x", 1, 0], "datatype"),
        ([842, ID, "x", 1, 2], "datatype 1 needs text (str), datatype 2 needs bytes"),
        ([842, ID, b"x", 1, 1], "datatype 1 needs text (str), datatype 2 needs bytes"),
        ([843, ID, -1, ""], "code"),
        ([843, ID, 65536, ""], "code"),
        ([843, ID, "x", ""], "code"),
        ([843, ID, 1000, None], "reason"),
        ([843, "", 1000, ""], "id"),
        ([844, ID, 5], "text"),
        ([844, "", "x"], "id"),
        ([841, ID, "ws://r/", "GET", "Manual"], "type"),
        ([841, ID, 5, "GET", "auto"], "url"),
        ([841, ID, "ws://r/", 5, "auto"], "headers"),
        ([841, "g" * 15, "ws://r/", "GET", "auto"], "id"),
        ([840, "Process", *PAGE[1:]], "id"),
        ([840, *PAGE[:1], 2, *PAGE[2:]], "handle"),
        ([840, *PAGE[:2], 600, *PAGE[3:]], "status"),
        ([840, *PAGE[:2], -1, *PAGE[3:]], "status"),
        ([840, *PAGE[:7], 5, *PAGE[8:]], "body"),
    ],
)
def test_an_element_that_is_wrong_is_named(elements: list[object], named: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        Event.from_message(["here", *elements])
    text = str(caught.value)
    assert text.startswith(f"not a valid {event_class(elements[0]).__name__} message: ")
    assert named in text.split(" message: ")[1]
    assert "\n" not in text
    assert isinstance(caught.value.__cause__, ValidationError)


@pytest.mark.parametrize("status", [0, 200, 599])
@pytest.mark.parametrize("handle", [0, 1])
def test_the_borders_of_a_page_event(status: int, handle: Literal[0, 1]) -> None:
    event = HTTPRequest(object="here", url="http://r/", status=status, handle=handle)
    assert event.message()[3:5] == [handle, status]


def test_a_page_event_that_nobody_has_answered() -> None:
    event = HTTPRequest(object="here", url="http://r/")
    assert event.message() == [
        "here",
        "HTTPRequest",
        "ProcessRequest",
        0,
        0,
        "",
        "",
        "http://r/",
        "",
        "",
        "GET",
    ]


@pytest.mark.parametrize("code", [0, 1005, 65535])
def test_the_borders_of_a_close_code(code: int) -> None:
    assert WebSocketClose(object="here", id=ID, code=code).code == code


def test_the_elements_beyond_the_published_are_no_part_of_the_vector() -> None:
    event = WebSocketClose(object="here", id=ID, code=1006, was_clean=False, initiator="fault")
    assert event.message() == ["here", "WebSocketClose", ID, 1006, ""]
    assert (event.was_clean, event.initiator) == (False, "fault")
    assert read_event(event.model_dump_json()) == event
    with pytest.raises(ValidationError):
        WebSocketClose(object="here", id=ID, code=1000, initiator="server")  # type: ignore[arg-type]


def test_an_error_names_its_url_beyond_the_published_elements() -> None:
    event = WebSocketError(object="here", id=ID, text="lost", url="ws://myapp/chat")
    assert event.message() == ["here", "WebSocketError", ID, "lost"]
    assert read_event(event.model_dump_json()) == event
    assert WebSocketError.from_message(event.message()).url == ""


def test_the_plain_elements_of_a_close() -> None:
    event = WebSocketClose(object="here", id=ID, code=1000)
    assert (event.reason, event.was_clean, event.initiator) == ("", True, "client")


@pytest.mark.parametrize("thing", [5, None, SimpleNamespace(), SimpleNamespace(name=5), [], b"here"])
def test_an_object_without_a_name_is_refused(thing: object) -> None:
    with pytest.raises(InvalidArgument, match="Object is a name, or something that has one"):
        Event.from_message([thing, 844, ID, "x"])


def test_an_event_is_shown_without_its_object() -> None:
    assert repr(WebSocketError(object=Place(), id=ID, text="x")).count("object") == 0


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_all_bytes_become_bytes(kind: Any) -> None:
    for data in (b"text", b"\xff"):
        assert WebSocketReceive(object="here", id=ID, data=kind(data), datatype=2).data == data
        assert upgrade(kind(data)).headers == data
        assert HTTPRequest(object="here", url="http://r/", body=kind(data)).body == data
        vector = ["here", 841, ID, "ws://r/", kind(data), "manual"]
        assert type(WebSocketUpgrade.from_message(vector).headers) is bytes


@pytest.mark.parametrize("numbers", [[], [0, 255, -128, -1], (1, 2), range(3)])
def test_integers_are_binary_data(numbers: Any) -> None:
    event = WebSocketReceive.from_message(["here", 842, ID, numbers, 1, 2])
    assert event.data == bytes(number % 256 for number in numbers)


@pytest.mark.parametrize("numbers", [[256], [-129], ["a"], [1.5], [None]])
def test_other_sequences_are_no_data(numbers: Any) -> None:
    with pytest.raises(InvalidArgument, match="binary data is bytes, or integers -128 to 255"):
        Event.from_message(["here", 842, ID, numbers, 1, 2])


# JSON


@given(st.binary(), st.booleans())
def test_binary_data_is_base64_in_json(data: bytes, fin: bool) -> None:
    event = WebSocketReceive(object="here", id=ID, data=data, fin=fin, datatype=2)
    plain = json.loads(event.model_dump_json())
    assert plain["data"] == base64.b64encode(data).decode()
    assert read_event(event.model_dump_json()) == event
    assert event.model_dump()["data"] is data


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_text_is_itself_in_json(text: str) -> None:
    event = WebSocketReceive(object="here", id=ID, data=text, datatype=1)
    assert json.loads(event.model_dump_json())["data"] == text
    assert read_event(event.model_dump_json()) == event


@given(st.binary())
def test_verbatim_bytes_are_told_apart_from_text_in_json(data: bytes) -> None:
    event = upgrade().verbatim(data)
    assert json.loads(event.model_dump_json())["headers"] == {"base64": base64.b64encode(data).decode()}
    again = read_event(event.model_dump_json())
    assert isinstance(again, WebSocketUpgrade)
    assert again.headers == data
    page = HTTPRequest(object="here", url="http://r/", body=data)
    assert read_event(page.model_dump_json()) == page
    assert page.model_dump()["body"] is data


def to_json(**fields: object) -> str:
    return json.dumps(
        {"event": "WebSocketReceive", "object": "here", "id": ID, "data": "eA==", "datatype": 2} | fields
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (to_json(data="*"), "binary data in JSON is a base64 string"),
        (to_json(data="eA"), "binary data in JSON is a base64 string"),
        (to_json(data=5), "binary data in JSON is a base64 string"),
        (to_json(data="é"), "binary data in JSON is a base64 string"),
        (to_json(id="x"), "id: "),
        (to_json(object=5), "object: "),
        (to_json(event="Nope"), "'Nope'"),
        (to_json(more=1), "more: "),
        ('{"object": "here"}', "event"),
        ("[1]", "message: "),
        ("5", "message: "),
        ("{", "message: "),
        ("", "message: "),
        (to_json(event="WebSocketUpgrade"), "headers"),
    ],
)
def test_json_that_is_no_event_is_refused(text: str, words: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        read_event(text)
    assert str(caught.value).startswith("not an event: ")
    assert words in str(caught.value)


@pytest.mark.parametrize("headers", [{"base64": "*"}, {"base64": 5}, {"base64": "eA==", "more": 1}, {}])
def test_headers_in_json_are_text_or_base64(headers: object) -> None:
    plain = json.loads(upgrade().model_dump_json())
    with pytest.raises(InvalidArgument, match="headers"):
        read_event(json.dumps(plain | {"headers": headers}))


def test_base64_is_for_json_only() -> None:
    with pytest.raises(ValidationError):
        upgrade({"base64": "eA=="})  # type: ignore[arg-type]
    assert WebSocketReceive.from_message(["here", 842, ID, b"eA==", 1, 2]).data == b"eA=="
    with pytest.raises(ValidationError):
        WebSocketReceive.model_validate([1])


# The events that the host makes without validation


def same(quick: Event, slow: Event) -> None:
    """One cannot be told from the other."""
    assert quick == slow
    assert hash(quick) == hash(slow)
    assert repr(quick) == repr(slow)
    assert quick.message() == slow.message()
    assert quick.model_dump() == slow.model_dump()
    assert quick.model_dump_json() == slow.model_dump_json()
    assert quick.model_fields_set >= slow.model_fields_set
    assert quick.model_copy(update={"id": "0" * 15}) == slow.model_copy(update={"id": "0" * 15})
    assert quick.object is slow.object
    with pytest.raises(ValidationError, match="frozen"):
        quick.event = "other"


@pytest.mark.parametrize(("data", "datatype"), [("text", 1), (b"\x00", 2)])
@pytest.mark.parametrize("fin", [True, False])
def test_a_received_event_is_the_validated_one(data: str | bytes, datatype: Literal[1, 2], fin: bool) -> None:
    place = Place()
    quick = receive_event(place, ID, data, fin, datatype)
    same(quick, WebSocketReceive(object=place, id=ID, data=data, fin=fin, datatype=datatype))
    assert quick.model_dump(exclude_unset=True)["data"] == data


@pytest.mark.parametrize("kind", ["auto", "manual"])
def test_an_upgrade_event_is_the_validated_one(kind: Literal["auto", "manual"]) -> None:
    place = Place()
    quick = upgrade_event(place, ID, "ws://x/", "GET / HTTP/1.1\r\n\r\n", kind, "")
    slow = WebSocketUpgrade(object=place, id=ID, url="ws://x/", headers="GET / HTTP/1.1\r\n\r\n", type=kind)
    same(quick, slow)
    same(quick.deny(), slow.deny())
    assert quick.deny().model_fields_set == slow.model_copy(update={"headers": ""}).model_fields_set | {
        "event"
    }


@pytest.mark.parametrize("initiator", ["client", "host", "fault"])
def test_a_close_event_is_the_validated_one(initiator: Literal["client", "host", "fault"]) -> None:
    place = Place()
    quick = close_event(place, ID, 3000, "why", initiator == "client", initiator)
    slow = WebSocketClose(
        object=place, id=ID, code=3000, reason="why", was_clean=initiator == "client", initiator=initiator
    )
    same(quick, slow)


def test_they_can_be_pickled() -> None:
    named = receive_event(Side.SERVER, ID, "x", True, 1)
    assert pickle.loads(pickle.dumps(named)) == named
