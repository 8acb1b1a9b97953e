from __future__ import annotations

import array
import ctypes
import enum
import mmap
from collections import UserString, deque
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interceptor.exceptions import InvalidArgument, UnsupportedType
from interceptor.payload import Data, check_close, to_payload


class Text(str):
    """A str of the program's own."""


class Level(enum.IntEnum):
    HIGH = 200


class Numbers(Sequence[int]):
    """A sequence that is no list."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: Any) -> Any:
        return (1, -1)[index]


TEXTS: list[tuple[str, bytes]] = [
    ("", b""),
    ("plain", b"plain"),
    ("Grüße 🌍", "Grüße 🌍".encode()),
    ("a\x00\r\n", b"a\x00\r\n"),
    (Text("own"), b"own"),
]

BINARIES: list[tuple[Any, bytes]] = [  # Any: all that has a buffer can be sent, which 3.11 cannot say
    (b"", b""),
    (b"\x00\xff", b"\x00\xff"),
    (bytearray(b"\x80"), b"\x80"),
    (memoryview(b"abc"), b"abc"),
    (memoryview(b"abcdef")[::2], b"ace"),
    (memoryview(b"abcdef")[::-1], b"fedcba"),
    (memoryview(bytes(range(12))).cast("B", (3, 4)), bytes(range(12))),
    (memoryview(array.array("H", [1, 2])), array.array("H", [1, 2]).tobytes()),
    (array.array("b", [-1, 1]), b"\xff\x01"),
    (array.array("i", [1, -2]), array.array("i", [1, -2]).tobytes()),
    (array.array("d"), b""),
    ((ctypes.c_ubyte * 3)(1, 2, 3), b"\x01\x02\x03"),
    ([], b""),
    ((), b""),
    ([0, 127, 128, 255], b"\x00\x7f\x80\xff"),
    ([-128, -1], b"\x80\xff"),
    (list(range(-128, 256)), bytes(range(128, 256)) + bytes(range(256))),
    (range(3), b"\x00\x01\x02"),
    (deque([1, 2]), b"\x01\x02"),
    (Numbers(), b"\x01\xff"),
    ([True, False], b"\x01\x00"),
    ([Level.HIGH], b"\xc8"),
]


@pytest.mark.parametrize(("data", "payload"), TEXTS)
def test_str_goes_as_text(data: str, payload: bytes) -> None:
    assert to_payload(data, None) == (payload, 1)
    assert to_payload(data, 1) == (payload, 1)
    assert to_payload(data, 2) == (payload, 2)


@pytest.mark.parametrize(("data", "payload"), BINARIES)
def test_bytes_and_integers_go_as_binary(data: Data, payload: bytes) -> None:
    for opcode in (None, 2):
        got = to_payload(data, opcode)
        assert got == (payload, 2)
        assert type(got[0]) is bytes


def test_what_the_program_changes_later_is_not_sent() -> None:
    data = bytearray(b"before")
    payload, _ = to_payload(data, None)
    data[:] = b"after."
    assert payload == b"before"


def test_a_mapped_file_goes_as_binary() -> None:
    with mmap.mmap(-1, 4) as mapped:
        mapped[:] = b"disk"
        assert to_payload(mapped, None) == (b"disk", 2)  # type: ignore[arg-type]  # bytes-like at run time


@pytest.mark.parametrize(
    "data", [b"Gr\xc3\xbc\xc3\x9fe", bytearray(b"a"), memoryview(b""), [71, 82], [-61, -68]]
)
def test_opcode_1_sends_bytes_as_text(data: Data) -> None:
    payload, opcode = to_payload(data, 1)
    assert opcode == 1
    assert payload == bytes(item & 0xFF for item in data)  # type: ignore[operator]  # all of these hold integers


@pytest.mark.parametrize(
    ("data", "position"),
    [
        (b"\xff", 0),
        (b"abc\xc3", 3),
        (b"\xed\xa0\x80", 0),
        (b"a\xf4\x90\x80\x80", 1),
        ([0, -1], 1),
        (b"\xc0\xaf", 0),
    ],
)
def test_opcode_1_refuses_what_is_not_utf8(data: Data, position: int) -> None:
    with pytest.raises(InvalidArgument, match="opcode 1 sends text, and the bytes are not UTF-8") as caught:
        to_payload(data, 1)
    assert str(caught.value).endswith(f"at position {position}")
    assert isinstance(caught.value.__cause__, UnicodeDecodeError)


@pytest.mark.parametrize(("data", "position"), [("\ud800", 0), ("ab\udfff", 2), ("\ude00\ud83d", 0)])
@pytest.mark.parametrize("opcode", [None, 1, 2])
def test_lone_surrogates_are_refused(data: str, position: int, opcode: int | None) -> None:
    with pytest.raises(InvalidArgument, match=f"lone surrogate at position {position}"):
        to_payload(data, opcode)


@pytest.mark.parametrize("opcode", [0, 3, 8, -1, 256, True, False, "1", "text", 1.5])
@pytest.mark.parametrize("data", ["text", b"binary"])
def test_any_other_opcode_is_refused(data: Data, opcode: Any) -> None:
    with pytest.raises(InvalidArgument, match="is none of 1 text, 2 binary") as caught:
        to_payload(data, opcode)
    assert f"opcode {opcode!r} " in str(caught.value)


@pytest.mark.parametrize("item", [-129, 256, 2**70, -(2**70)])
@pytest.mark.parametrize("index", [0, 3])
def test_an_integer_out_of_range_is_named_with_its_place(item: int, index: int) -> None:
    data = [1] * index + [item]
    with pytest.raises(InvalidArgument, match=f"item {index} is {item}; .* integers -128..255"):
        to_payload(data, None)


@pytest.mark.parametrize("item", [1.0, "a", None, b"a", [1]])
def test_an_item_that_is_no_integer_is_named_with_its_place(item: Any) -> None:
    with pytest.raises(UnsupportedType, match="a sequence to send holds integers") as caught:
        to_payload([0, item], None)
    assert str(caught.value).startswith(f"item 1 is {item!r};")


@pytest.mark.parametrize("data", [None, 5, 1.5, {1, 2}, {1: 2}, object(), iter([1]), UserString, True])
def test_other_types_are_refused_by_name(data: Any) -> None:
    with pytest.raises(UnsupportedType, match="cannot be sent; send str, bytes-like") as caught:
        to_payload(data, None)
    assert str(caught.value).startswith(type(data).__name__)


@given(st.text())
def test_all_text_comes_back(text: str) -> None:
    assert to_payload(text, None)[0].decode() == text


@given(st.lists(st.integers(-128, 255)))
def test_all_integers_in_range_are_one_byte_each(numbers: list[int]) -> None:
    assert list(to_payload(numbers, None)[0]) == [number % 256 for number in numbers]


@pytest.mark.parametrize("code", [1000, 3000, 3001, 4000, 4999])
@pytest.mark.parametrize("reason", ["", "bye", "x" * 123, "é" * 61, "🌍" * 30])
def test_codes_and_reasons_for_programs(code: int, reason: str) -> None:
    check_close(code, reason)  # Nothing is raised.


@pytest.mark.parametrize("code", [-1, 0, 999, 1001, 1005, 1006, 1011, 1015, 2999, 5000, 65536, 2**70])
def test_any_other_code_is_refused(code: int) -> None:
    with pytest.raises(
        InvalidArgument, match=f"close code {code} is not for programs; use 1000, or 3000 to 4999"
    ):
        check_close(code, "")


@pytest.mark.parametrize("code", [None, "1000", 1000.0, True, False])
def test_a_code_is_an_integer(code: Any) -> None:
    with pytest.raises(UnsupportedType) as caught:
        check_close(code, "")
    assert str(caught.value) == f"close code {code!r} is no integer"


@pytest.mark.parametrize(
    ("reason", "size"), [("x" * 124, 124), ("é" * 62, 124), ("🌍" * 31, 124), ("x" * 9999, 9999)]
)
def test_a_reason_has_at_most_123_bytes(reason: str, size: int) -> None:
    with pytest.raises(InvalidArgument, match=f"the close reason is {size} bytes of UTF-8; at most 123 fit"):
        check_close(1000, reason)


@pytest.mark.parametrize("reason", [None, b"bye", 5])
def test_a_reason_is_a_str(reason: Any) -> None:
    with pytest.raises(UnsupportedType) as caught:
        check_close(1000, reason)
    assert str(caught.value) == f"close reason {reason!r} is no str"


def test_a_reason_with_a_lone_surrogate_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="lone surrogate at position 2"):
        check_close(3000, "ok\ud800")
