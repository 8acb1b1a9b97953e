# ruff: noqa: RUF001 - letters that look like others are what is tested here
from __future__ import annotations

import re
from typing import Any, cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from interceptor import urls
from interceptor.exceptions import InvalidArgument, UnsupportedType
from interceptor.urls import normal_authority, normal_patterns, normalize, origins

# What browsers make of these (Node's URL class and Chromium were asked), but for user names and fragments.
SAME_URL = [
    ("ws://myapp/chat?x=1", "ws://myapp/chat?x=1"),
    ("WS://MyApp/Chat?X=1", "ws://myapp/Chat?X=1"),
    ("wss://a:443/", "wss://a/"),
    ("wss://a:80/", "wss://a:80/"),
    ("https://a:443/", "https://a/"),
    ("http://a:443/", "http://a:443/"),
    ("ws://a:00080/", "ws://a/"),
    ("ws://a:", "ws://a/"),
    ("ws://a:0/", "ws://a:0/"),
    ("ws://a:000/", "ws://a:0/"),
    ("ws://a:65535/", "ws://a:65535/"),
    ("ws://a:49152", "ws://a:49152/"),
    ("ws://dyalog_root", "ws://dyalog_root/"),
    ("ws://a?x", "ws://a/?x"),
    ("ws://a?x/y", "ws://a/?x/y"),
    ("ws://a/?", "ws://a/?"),
    ("ws://a/b#c?d", "ws://a/b"),
    ("ws://a#", "ws://a/"),
    ("ws://a?b#c", "ws://a/?b"),
    # spellings of the beginning
    ("ws:a", "ws://a/"),
    ("ws:/a", "ws://a/"),
    ("ws:////a/b", "ws://a/b"),
    ("ws:\\\\a\\b?c\\d", "ws://a/b?c\\d"),
    (" \x00ws://a/ \x1f", "ws://a/"),
    ("w\ts:/\n/a\r/b", "ws://a/b"),
    # user names
    ("ws://u:p@a/", "ws://a/"),
    ("ws://a@b@c:9/@d", "ws://c:9/@d"),
    # paths
    ("ws://a/./b/../c/.", "ws://a/c/"),
    ("ws://a/../../b", "ws://a/b"),
    ("ws://a/b/..", "ws://a/"),
    ("ws://a/%2e/%2E%2e/b/.%2E/c%2e", "ws://a/c%2e"),
    ("ws://a//..//", "ws://a//"),
    ("ws://a/...", "ws://a/..."),
    ("ws://a/.b/..c", "ws://a/.b/..c"),
    ("ws://a/?/../b", "ws://a/?/../b"),
    ("ws://a/%zz%", "ws://a/%zz%"),
    ("ws://a/%c3%A9%41", "ws://a/%c3%A9%41"),
    ("ws://a/é \"<>`{}^|'\x7f", "ws://a/%C3%A9%20%22%3C%3E%60%7B%7D%5E|'%7F"),
    ("ws://a/?é \"<>`{}^|'\x7f", "ws://a/?%C3%A9%20%22%3C%3E`{}^|%27%7F"),
    ("ws://a/\ud800\U0001f600\ud83d\ude00", "ws://a/%EF%BF%BD%F0%9F%98%80%F0%9F%98%80"),
    ("ws://a/?\udc00", "ws://a/?%EF%BF%BD"),
    # names
    ("ws://faß.de/", "ws://xn--fa-hia.de/"),
    ("ws://FAẞ.de/", "ws://xn--fa-hia.de/"),
    ("ws://ς.σ/", "ws://xn--3xa.xn--4xa/"),
    ("ws://ΑΣ/", "ws://xn--mxa0b/"),
    ("ws://Bücher.Example/", "ws://xn--bcher-kva.example/"),
    ("ws://bu\u0308cher/", "ws://xn--bcher-kva/"),
    ("ws://b%C3%BCcher/", "ws://xn--bcher-kva/"),
    ("ws://ex%41mple/", "ws://example/"),
    ("ws://a。b．c｡d/", "ws://a.b.c.d/"),
    ("ws://ⓐ𝕓/", "ws://ab/"),
    ("ws://a\u00ad\u200bb/", "ws://ab/"),
    ("ws://☃/", "ws://xn--n3h/"),
    ("ws://XN--N3H/", "ws://xn--n3h/"),
    ("ws://ſᾳ/", "ws://xn--s-zlby/"),
    ("ws://my*app~!$&'()+,;=_-/", "ws://my*app~!$&'()+,;=_-/"),
    ("ws://a..b./", "ws://a..b./"),
    # numbers
    ("ws://127.0.0.1:8080/", "ws://127.0.0.1:8080/"),
    ("ws://127.1/", "ws://127.0.0.1/"),
    ("ws://0x7F.1/", "ws://127.0.0.1/"),
    ("ws://0177.0.1/", "ws://127.0.0.1/"),
    ("ws://2130706433/", "ws://127.0.0.1/"),
    ("ws://0x/", "ws://0.0.0.0/"),
    ("ws://1.2.3.4./", "ws://1.2.3.4/"),
    ("ws://１２７.1/", "ws://127.0.0.1/"),
    ("ws://1.2.3.a/", "ws://1.2.3.a/"),
    ("ws://0xg/", "ws://0xg/"),
    ("ws://000000000000000000000000001/", "ws://0.0.0.1/"),
    ("ws://[::1]:80/", "ws://[::1]/"),
    ("ws://[0:0:0:0:0:0:0:0]/", "ws://[::]/"),
    ("ws://[FE80::0DB8:0:0:1]/", "ws://[fe80::db8:0:0:1]/"),
    ("ws://[1:0:0:2:0:0:3:4]:8/", "ws://[1::2:0:0:3:4]:8/"),
    ("ws://[1:0:0:2::]/", "ws://[1:0:0:2::]/"),
    ("ws://[1:0:2:3:4:5:6:7]/", "ws://[1:0:2:3:4:5:6:7]/"),
    ("ws://[10:0:0:20:0:0:0:3]/", "ws://[10:0:0:20::3]/"),
    ("ws://[::ffff:1.2.3.4]/", "ws://[::ffff:102:304]/"),
]

NO_URL = [
    ("", "must begin with"),
    ("myapp/chat", "must begin with"),
    ("//myapp/", "must begin with"),
    ("ftp://a/", "must begin with"),
    ("file:///a", "must begin with"),
    ("ws://", "no host"),
    ("ws:///", "no host"),
    ("ws://?x", "no host"),
    ("ws://:80/", "no host"),
    ("ws://u@/", "no host"),
    ("ws://\u00ad/", "no host"),
    ("ws://a:b/", "host:port"),
    ("ws://a:1:2/", "host:port"),
    ("ws://a:٣/", "host:port"),
    ("ws://a:65536/", "65535"),
    ("ws://a:*/", "65535"),
    ("ws://a:" + "9" * 5000 + "/", "65535"),
    ("ws://a b/", "' '"),
    ("ws://a%20b/", "' '"),
    ("ws://a%2Fb/", "'/'"),
    ("ws://a%25/", "'%'"),
    ("ws://a%zz/", "'%'"),
    ("ws://a|b/", "'|'"),
    ("ws://a^b/", "'^'"),
    ("ws://a<b/", "'<'"),
    ("ws://a\x7f/", "x7f"),
    ("ws://a／b/", "'/'"),
    ("ws://é／b/", "'/'"),
    ("ws://%80/", "cannot hold"),
    ("ws://\ud800/", "cannot hold"),
    ("ws://\u0301a/", "cannot hold"),
    ("ws://a\u202eb/", "cannot hold"),
    ("ws://a\ue000/", "cannot hold"),
    ("ws://xn--é/", "cannot hold"),
    ("ws://⒈com/", "full stop"),
    ("ws://" + "é" * 254 + "/", "253"),
    ("ws://256.1/", "IPv4"),
    ("ws://1.2.3.256/", "IPv4"),
    ("ws://1.2.3.4.5/", "IPv4"),
    ("ws://4294967296/", "IPv4"),
    ("ws://0x" + "f" * 9000 + "/", "IPv4"),
    ("ws://1..2/", "IPv4"),
    ("ws://a.09/", "IPv4"),
    ("ws://08/", "IPv4"),
    ("ws://a.0x1/", "IPv4"),
    ("ws://[::1/", "not a host"),
    ("ws://[::1]x/", "not a host"),
    ("ws://[]/", "IPv6"),
    ("ws://[1::2::3]/", "IPv6"),
    ("ws://[00001::]/", "IPv6"),
    ("ws://[::1.2.3]/", "IPv6"),
    ("ws://[fe80::1%25eth0]/", "IPv6"),
    ("ws://[fe80::1%eth0]/", "IPv6"),
]

# Normal URLs as the fast way knows them, and every spelling that only looks like one.
NEARLY_NORMAL = st.from_regex(
    r"(?:ws|wss|http|https)://(?:[a0x_.-]{1,6}|127\.0\.0\.1[.:a0]?)(?::[0-9]{1,6})?/"
    r"(?:[a./%2eE|^*~'é]{0,8})(?:\?[a'#^ *\\]{0,5})?",
    fullmatch=True,
)
PIECES = [
    "ws:",
    "wss://",
    "http://",
    "//",
    "/../",
    "%2e",
    "%C3%A9",
    "xn--",
    ":80",
    ":443",
    "127",
    "0x",
    "[::1]",
]
LETTERS = "aA.:/\\?#@%[]*|^`'\"<> \t\0é。ßΣK１\u00ad\u0301\ud83d\ude00"
ANYTHING = st.lists(st.sampled_from([*PIECES, *LETTERS])).map("".join)


@pytest.mark.parametrize(("url", "normal"), SAME_URL)
def test_a_url_has_one_normal_form(url: str, normal: str) -> None:
    assert normalize(url) == normal
    assert normalize(normal) == normal


@pytest.mark.parametrize(("url", "fault"), NO_URL)
def test_what_is_no_url_is_refused_by_name(url: str, fault: str) -> None:
    with pytest.raises(InvalidArgument, match=re.escape(fault)) as caught:
        normalize(url)
    assert repr(url)[1:100].rstrip("'") in str(caught.value)


def test_a_long_url_is_cut_in_the_message() -> None:
    with pytest.raises(InvalidArgument) as caught:
        normalize("ftp://" + "a" * 100_000)
    assert len(str(caught.value)) < 400


def test_only_text_is_a_url() -> None:
    with pytest.raises(UnsupportedType, match="bytes"):
        normalize(cast(Any, b"ws://a/"))


@given(st.one_of(NEARLY_NORMAL, ANYTHING, ANYTHING.map("ws://a".__add__)))
@example("ws://a/.")
@example("ws://a:080/")
def test_the_normal_form_is_final(url: str) -> None:
    try:
        normal = normalize(url)
    except InvalidArgument:
        return
    assert normalize(normal) == normal
    assert normal.isascii()
    assert re.fullmatch(r"(ws|wss|http|https)://[^/?#@A-Z]+/[^#\s]*", normal)


@given(st.one_of(NEARLY_NORMAL, ANYTHING.map("ws://a".__add__)))
@example("ws://a://")
@example("ws://a//.")
@example("ws://a.b/c/.?d")
def test_the_short_way_takes_only_what_the_long_way_leaves_alone(url: str) -> None:
    if urls._NORMAL.fullmatch(url):
        assert urls._parse(url) == url


@pytest.mark.parametrize(
    "url",
    [
        "ws://myapp/chat?x=1",
        "https://a.b-c.test:49152/.x/",
        "wss://dyalog_root:8080/a.b",
        "http://127.0.0.1:49152/a",
    ],
)
def test_the_usual_url_takes_the_short_way(url: str) -> None:
    assert bool(urls._NORMAL.fullmatch(url)) == ("/." not in url)


def test_an_authority_has_one_origin_for_each_scheme() -> None:
    assert origins("MyApp:80") == ("ws://myapp", "wss://myapp:80", "http://myapp", "https://myapp:80")


@pytest.mark.parametrize(
    "text", ["", "a/b", "a\\b", "a?b", "a#b", "u@a", "a b", " a", "a\n", ":80", "a:b", "[::1", "256.1"]
)
def test_what_is_no_authority_has_no_origin(text: str) -> None:
    assert origins(text) == ()


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("MyApp", "myapp"),
        ("a:080", "a:80"),
        ("a:443", "a:443"),
        ("a:000", "a:0"),
        ("a:" + "0" * 5000, "a:0"),
        ("127.1:9", "127.0.0.1:9"),
        ("[::0]:9", "[::]:9"),
    ],
)
def test_an_authority_without_a_scheme_keeps_its_port(text: str, normal: str) -> None:
    assert normal_authority(text) == normal


@pytest.mark.parametrize("text", ["", "a*", "a/b", "a:b", "my%2Aapp"])
def test_a_wildcard_or_a_path_is_no_authority(text: str) -> None:
    with pytest.raises(InvalidArgument, match="no host name"):
        normal_authority(text)


# A pattern that is compared with ws:// URLs, and what it becomes.
SAME_PATTERN = [
    ("ws://myapp", "ws://myapp/"),
    ("WS://MyApp/Chat*", "ws://myapp/Chat*"),
    ("ws://myapp?x", "ws://myapp/?x"),
    ("ws://myapp:80/", "ws://myapp/"),
    ("ws://myapp:0443/", "ws://myapp:443/"),
    ("ws://*:8080/", "ws://*:8080/"),
    ("ws://*.Test:80", "ws://*.test/"),
    ("ws://myapp:*/", "ws://myapp:*/"),
    ("ws://[::0001]:*/", "ws://[::1]:*/"),
    ("ws://*", "ws://*"),
    ("ws://My*", "ws://my*"),
    ("ws://*?x=*", "ws://*?x=*"),
    ("ws://my*App?x", "ws://my*app/?x"),
    ("ws://Bücher.*.test", "ws://xn--bcher-kva.*.test/"),
    ("ws://127.1/", "ws://127.0.0.1/"),
    ("ws://a\\b\\*", "ws://a/b/*"),
    ("ws://a/b/../c/./*", "ws://a/c/*"),
    ("ws://a/b/..", "ws://a/"),
    ("ws://a/*/../b", "ws://a/*/../b"),
    ("ws://a/b/../c*", "ws://a/c*"),
    ("ws://a/?/../*", "ws://a/?/../*"),
    ("ws://a/é{*}?é{*}", "ws://a/%C3%A9%7B*%7D?%C3%A9{*}"),
    ("ws://a/\ud800", "ws://a/%EF%BF%BD"),
    ("*", "*"),
    ("WS*é\\{}?{}", "ws*%C3%A9/%7B%7D?{}"),
    ("W*/Chat", "w*/Chat"),
    ("ws:/*", "ws:/*"),
    ("*/a?u=ws://b", "*/a?u=ws://b"),
]


@pytest.mark.parametrize(("pattern", "normal"), SAME_PATTERN)
def test_a_pattern_is_brought_into_the_form_of_urls(pattern: str, normal: str) -> None:
    assert normal_patterns(pattern) == (normal,)
    assert normal_patterns(normal) == (normal,)


@pytest.mark.parametrize(
    ("scheme", "covered"),
    [
        ("*", ["ws", "wss", "http", "https"]),
        ("WS*", ["ws", "wss"]),
        ("http*", ["http", "https"]),
        ("*s", ["ws", "wss", "https"]),
        ("**", ["ws", "wss", "http", "https"]),
        ("https", ["https"]),
    ],
)
def test_a_star_before_the_host_covers_schemes(scheme: str, covered: list[str]) -> None:
    assert normal_patterns(f"{scheme}://A/*") == tuple(f"{one}://a/*" for one in covered)


def test_the_default_port_goes_scheme_by_scheme() -> None:
    assert normal_patterns("*://a:80/") == ("ws://a/", "wss://a:80/", "http://a/", "https://a:80/")
    assert normal_patterns("*://a:443/") == ("ws://a:443/", "wss://a/", "http://a:443/", "https://a/")


@pytest.mark.parametrize(
    ("pattern", "remedy"),
    [
        ("", 'write "*" for all'),
        ("myapp/chat", "write ws://myapp/chat or *://myapp/chat"),
        ("my*app", "write ws://my*app or *://my*app"),
        ("ws:\\\\x", "no scheme"),
        ("/chat", "write ws://HOST/chat"),
        ("ftp://x", "scheme is 'ftp'; write ws, wss, http, https"),
        ("f*://x", "scheme is 'f*'"),
        ("ws://", "no host"),
        ("*:///chat", "no host"),
        ("ws://:*/", "no host"),
        ("ws://a/#top", "fragment"),
        ("ws://a/ b", "percent-encoded"),
        ("ws://a/\x07", "percent-encoded"),
        ("ws://a/\u2003", "percent-encoded"),
        ("ws://u@a/", "user name"),
        ("ws://*@a/", "user name"),
        ("ws://*:80/", "would be all ports; leave it out"),
        ("wss://my*:443/", "would be all ports"),
        ("*://my*:80/", "would be all ports"),
        ("ws://a:65536/", "65535"),
        ("ws://a:8x/", "host:port"),
        ("ws://[::*]/", "cannot hold '['"),
        ("ws://my%2Aapp/", "write * itself"),
        ("ws://my＊app/", "write * itself"),
        ("ws://bü*.test/", "write it in full"),
        ("ws://1.2.3.4.5/", "IPv4"),
    ],
)
def test_a_pattern_that_could_not_match_is_refused_with_the_remedy(pattern: str, remedy: str) -> None:
    with pytest.raises(InvalidArgument, match=re.escape(remedy)):
        normal_patterns(pattern)
