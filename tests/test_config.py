from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interceptor.config import CSP, TOKEN_CHARACTERS, Limits, Security, Settings, Timeouts
from interceptor.exceptions import InterceptorError, InvalidArgument, UnsupportedType

LIMITS = {
    "head": 16 * 1024,
    "fields": 100,
    "message": 16 * 1024 * 1024,
    "body": 16 * 1024 * 1024,
    "sockets": 10_000,
    "pending": 1_000,
    "read_buffer": 1024 * 1024,
    "write_buffer": 16 * 1024 * 1024,
}
TIMEOUTS = {"head": 10, "answer": 30, "close": 10, "ping": 20, "pong": 20}
TOKEN = "correct-horse_battery.staple~0"


def test_the_published_defaults() -> None:
    assert dataclasses.asdict(Limits()) == LIMITS
    assert dataclasses.asdict(Timeouts()) == TIMEOUTS
    assert dataclasses.asdict(Security()) == {
        "origins": (),
        "allow_no_origin": False,
        "token": None,
        "allow_remote": False,
        "csp": CSP,
    }


@pytest.mark.parametrize("cls", [Limits, Timeouts, Security])
def test_values_are_frozen_and_given_by_name_only(cls: Any) -> None:
    name = dataclasses.fields(cls)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(cls(), name, 1)
    with pytest.raises(TypeError):
        cls(1)
    assert cls() == cls()
    assert hash(cls()) == hash(cls())
    assert not hasattr(cls(), "__dict__")


@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize("value", [0, -1, True, False, 1.0, "1", None, math.inf])
def test_a_limit_is_a_whole_number_above_0(name: str, value: object) -> None:
    with pytest.raises(InvalidArgument, match="a whole number above 0 is needed") as caught:
        Limits(**{name: value})  # type: ignore[arg-type]
    assert f"Limits.{name} is {value!r};" in str(caught.value)


@pytest.mark.parametrize("name", LIMITS)
def test_a_limit_of_1_is_a_limit(name: str) -> None:
    assert getattr(Limits(**{name: 1}), name) == 1


@pytest.mark.parametrize("name", TIMEOUTS)
@pytest.mark.parametrize("value", [0, 0.0, -1, -0.5, True, False, "1", math.nan, -math.inf, 1j])
def test_a_time_is_above_0(name: str, value: object) -> None:
    with pytest.raises(InvalidArgument, match="seconds above 0 are needed") as caught:
        Timeouts(**{name: value})  # type: ignore[arg-type]
    assert f"Timeouts.{name} is {value!r};" in str(caught.value)


@pytest.mark.parametrize("name", TIMEOUTS)
@pytest.mark.parametrize("value", [1, 0.001, math.inf])
def test_a_time_is_any_number_above_0(name: str, value: float) -> None:
    assert getattr(Timeouts(**{name: value}), name) == value


@pytest.mark.parametrize("name", TIMEOUTS)
def test_only_the_keepalive_can_be_switched_off(name: str) -> None:
    if name in ("ping", "pong"):
        assert getattr(Timeouts(**{name: None}), name) is None  # type: ignore[arg-type]
    else:
        with pytest.raises(InvalidArgument, match=f"Timeouts.{name} is None"):
            Timeouts(**{name: None})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given_origin", "kept"),
    [
        ("https://app.test", "https://app.test"),
        ("HTTPS://App.Test", "https://app.test"),
        ("http://[::1]:5173", "http://[::1]:5173"),
        ("chrome-extension://abcdefghijklmnop", "chrome-extension://abcdefghijklmnop"),
        ("app://-", "app://-"),
        ("http://app.test:80", "http://app.test"),
        ("https://app.test:443", "https://app.test"),
        ("https://[::1]:443", "https://[::1]"),
        ("https://app.test:80", "https://app.test:80"),
        ("http://app.test:8080", "http://app.test:8080"),
        ("http://xn--bcher-kva.test", "http://xn--bcher-kva.test"),
        ("null", "null"),
        ("NULL", "null"),
        ("*", "*"),
    ],
)
def test_an_origin_is_kept_as_browsers_send_it(given_origin: str, kept: str) -> None:
    assert Security(origins=(given_origin,)).origins == (kept,)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "app.test",
        "//app.test",
        "http:app.test",
        "http://",
        "://app.test",
        "http://app.test/",
        "http://app.test/x",
        "http://app.test:",
        "http://app.test:x",
        "http://user@app.test",
        "http://app.test?x",
        "http://app.test#x",
        "http://a b",
        " http://app.test",
        "https://*.app.test",
        "**",
        "http://bücher.test",
        "http://app.test\n",
        "http://::1",
        "http://[::1",
    ],
)
def test_what_no_browser_sends_as_an_origin_is_refused(value: str) -> None:
    with pytest.raises(InvalidArgument, match="write scheme://host") as caught:
        Security(origins=("http://right.test", value))
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize("value", ["ws://app.test", "WSS://app.test:443"])
def test_the_url_of_a_websocket_is_no_origin(value: str) -> None:
    with pytest.raises(InvalidArgument, match="pages have http or https origins") as caught:
        Security(origins=(value,))
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize("value", ["http://app.test", 7, None])
def test_origins_are_a_list(value: object) -> None:
    with pytest.raises(UnsupportedType, match="a list of origins is needed") as caught:
        Security(origins=value)  # type: ignore[arg-type]
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize("value", [b"http://app.test", None, 7])
def test_each_origin_is_a_string(value: object) -> None:
    with pytest.raises(UnsupportedType, match="each origin is a string") as caught:
        Security(origins=(value,))  # type: ignore[arg-type]
    assert repr(value) in str(caught.value)


def test_origins_may_come_from_any_iterable() -> None:
    given_origins = iter(["http://a.test", "http://b.test"])
    assert Security(origins=given_origins).origins == ("http://a.test", "http://b.test")  # type: ignore[arg-type]


def test_a_token_is_kept_and_not_shown() -> None:
    security = Security(token=TOKEN)
    assert security.token == TOKEN
    assert TOKEN not in repr(security)
    assert TOKEN not in repr(Settings((), True, False, Limits(), Timeouts(), security))


@pytest.mark.parametrize("token", ["a" * 15, "", "a" * 16 + "/", "a" * 16 + "=", "a" * 15 + "é", " " * 20])
def test_a_token_that_is_weak_or_needs_quoting_is_refused_and_not_repeated(token: str) -> None:
    with pytest.raises(InvalidArgument, match="at least 16 characters") as caught:
        Security(token=token)
    assert not token or token not in str(caught.value)


@pytest.mark.parametrize("token", [1234567890123456, b"a" * 16, ["a"] * 16])
def test_a_token_is_a_string(token: object) -> None:
    with pytest.raises(InterceptorError) as caught:
        Security(token=token)  # type: ignore[arg-type]
    assert repr(token) not in str(caught.value)


def test_a_token_of_16_characters_is_enough() -> None:
    assert Security(token="-_.~AZaz09aaaaaa").token == "-_.~AZaz09aaaaaa"


@given(st.text(st.sampled_from(sorted(TOKEN_CHARACTERS)), min_size=16, max_size=64))
def test_every_token_of_the_named_characters_is_taken(token: str) -> None:
    assert Security(token=token).token == token


def test_settings_hold_what_they_are_given() -> None:
    parts = (("chat",), False, True, Limits(head=1), Timeouts(head=1), Security())
    settings = Settings(*parts)
    assert dataclasses.astuple(settings)[:3] == (("chat",), False, True)
    assert not hasattr(settings, "__dict__")
    assert (settings.limits.head, settings.timeouts.head, settings.security) == (1, 1, Security())
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.chunks = False  # type: ignore[misc]
