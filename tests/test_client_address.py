"""URL, subprotocols and extra fields: the constructor's steps 1 to 9, each with its throw."""

from __future__ import annotations

import pytest

from interceptor import DOMException, InvalidArgument, UnsupportedType
from interceptor.client.address import BAD_PORTS, check_headers, parse_address, parse_protocols

HREFS = {
    "ws://e": "ws://e/",
    "WSS://Ex.test:443/a b?c d": "wss://ex.test/a%20b?c%20d",
    "ws://e/a/../b/./c": "ws://e/b/c",
    "  ws://e/\n": "ws://e/",
    "ws:e/x": "ws://e/x",
    "ws:\\\\e\\x": "ws://e/x",
    "ws://Ü.test/ü": "ws://xn--tda.test/%C3%BC",
    "ws://127.1": "ws://127.0.0.1/",
    "ws://[0:0::1]:8080/": "ws://[::1]:8080/",
    "ws://e/\ud800": "ws://e/%EF%BF%BD",
    "ws://u:p@e/": "ws://u:p@e/",
}


@pytest.mark.parametrize("url", HREFS)
def test_step_2_the_url_is_parsed_as_the_url_standard_has_it(url: str) -> None:
    assert parse_address(url).href == HREFS[url]


def test_steps_1_and_2_a_relative_url_has_a_base() -> None:
    assert parse_address("/chat", "https://h.test:8443/page#x").href == "wss://h.test:8443/chat"
    assert parse_address("?q", "ws://h.test/page").resource == "/page?q"
    assert parse_address("//other.test", "http://h.test").href == "ws://other.test/"


@pytest.mark.parametrize(
    "url", ["", "chat", "/chat", "ws://", "ws://a b/", "ws://e:99999", "ws://[::1", "ws://xn--ü"]
)
def test_step_3_a_url_that_cannot_be_parsed_throws_syntax_error(url: str) -> None:
    with pytest.raises(DOMException, match="is no URL") as error:
        parse_address(url)
    assert error.value.name == "SyntaxError"


def test_steps_4_and_5_http_becomes_ws_and_https_wss() -> None:
    assert parse_address("http://e/x").href == "ws://e/x"
    assert parse_address("https://e/x").href == "wss://e/x"
    assert parse_address("https://e:80/x").href == "wss://e:80/x"


@pytest.mark.parametrize(
    "url", ["ftp://e", "mailto:a@b", "about:blank", "data:,x", "javascript:1", "wsx://e"]
)
def test_step_6_another_scheme_throws_syntax_error(url: str) -> None:
    with pytest.raises(DOMException, match="ws, wss, http, https") as error:
        parse_address(url)
    assert error.value.name == "SyntaxError"


@pytest.mark.parametrize("url", ["ws://e/#", "ws://e/x#y", "http://e/?a#b"])
def test_step_7_a_fragment_throws_syntax_error_even_if_empty(url: str) -> None:
    with pytest.raises(DOMException, match="fragment") as error:
        parse_address(url)
    assert error.value.name == "SyntaxError"


def test_step_8_a_string_is_one_protocol() -> None:
    assert parse_protocols("chat") == ("chat",)
    assert parse_protocols(["b", "a"]) == ("b", "a")
    assert parse_protocols(()) == ()


@pytest.mark.parametrize(
    "protocols", ["", "a b", "a,b", ["a", "a"], ["a", ""], "ü", "a\n", ["a", "b/c"], "a\x7f"]
)
def test_step_9_protocols_repeated_or_no_tokens_throw_syntax_error(protocols: str | list[str]) -> None:
    with pytest.raises(DOMException) as error:
        parse_protocols(protocols)
    assert error.value.name == "SyntaxError"


def test_protocols_that_differ_in_case_are_two() -> None:
    assert parse_protocols(["chat", "Chat"]) == ("chat", "Chat")


@pytest.mark.parametrize(
    ("url", "authority", "hostname", "port", "resource", "secure", "origin"),
    [
        ("ws://e", "e", "e", 80, "/", False, "ws://e"),
        ("wss://e:8443/a?b", "e:8443", "e", 8443, "/a?b", True, "wss://e:8443"),
        ("wss://[::1]/a?", "[::1]", "::1", 443, "/a", True, "wss://[::1]"),
        ("ws://u:p@e//x", "e", "e", 80, "//x", False, "ws://e"),
    ],
)
def test_what_is_connected_to_and_asked_for(
    url: str, authority: str, hostname: str, port: int, resource: str, secure: bool, origin: str
) -> None:
    address = parse_address(url)
    assert (address.authority, address.hostname, address.port) == (authority, hostname, port)
    assert (address.resource, address.secure, address.origin) == (resource, secure, origin)


def test_the_log_sees_neither_credentials_nor_query() -> None:
    assert parse_address("ws://u:secret@e/x?token=secret").public == "ws://e/x"


@pytest.mark.parametrize("wrong", [None, 1, b"ws://e"])
def test_what_is_no_text_is_refused(wrong: object) -> None:
    with pytest.raises(UnsupportedType):
        parse_address(wrong)  # type: ignore[arg-type]
    with pytest.raises(UnsupportedType):
        parse_protocols([wrong])  # type: ignore[list-item]


def test_extra_fields_are_pairs_or_a_mapping() -> None:
    assert check_headers({"Cookie": "a=b", "Authorization": "x"}) == (
        ("Cookie", "a=b"),
        ("Authorization", "x"),
    )
    assert check_headers([("A", "1"), ("A", "2")]) == (("A", "1"), ("A", "2"))


@pytest.mark.parametrize(
    "name", ["Upgrade", "connection", "SEC-WEBSOCKET-KEY", "Sec-WebSocket-Protocol", "Content-Length"]
)
def test_fields_of_the_handshake_cannot_be_given(name: str) -> None:
    with pytest.raises(InvalidArgument, match="the handshake's own"):
        check_headers({name: "x"})


@pytest.mark.parametrize(
    ("name", "value"), [("a b", "x"), ("", "x"), ("X", "a\r\nY: b"), ("X", "a\0"), ("X", "€")]
)
def test_fields_that_would_break_the_head_are_refused(name: str, value: str) -> None:
    with pytest.raises(InvalidArgument):
        check_headers([(name, value)])


def test_the_bad_ports_are_those_of_the_fetch_standard() -> None:
    assert {1, 22, 25, 110, 143, 587, 6000, 6667, 10080} <= BAD_PORTS
    assert not {80, 443, 8080, 8443, 3000, 5000, 9000} & BAD_PORTS
    assert len(BAD_PORTS) == 83


@pytest.mark.parametrize("protocols", [5, None, b"chat"])
def test_protocols_that_are_none(protocols: object) -> None:
    with pytest.raises(UnsupportedType, match="a str, or a sequence of str"):
        parse_protocols(protocols)  # type: ignore[arg-type]
