from __future__ import annotations

import copy
import dataclasses
import pickle
import re
from typing import Any, cast

import pytest

from interceptor.exceptions import InvalidArgument, InvalidRule, UnsupportedType
from interceptor.patterns import InterceptedURLs, Mode, Pattern, Rule

# --- what a pattern means -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "url"),
    [
        ("*", "https://a/b?c"),
        ("ws://myapp", "ws://myapp/"),
        ("ws://myapp/", "ws://myapp"),
        ("ws://myapp/*", "ws://myapp/a/b?c/d"),
        ("WS://MyApp/*", "ws://MYAPP/x"),
        ("ws://myapp/c*t", "ws://myapp/ct"),
        ("ws://myapp/c*t", "ws://myapp/c/a/t"),
        ("ws://myapp?x", "ws://myapp/?x"),
        ("ws://myapp:80/", "ws://myapp/"),
        ("ws://myapp/", "ws://myapp:80/"),
        ("wss://myapp:443/", "wss://myapp/"),
        ("*://myapp:80/", "ws://myapp/"),
        ("*://myapp:80/", "wss://myapp:80/"),
        ("ws://myapp:*/", "ws://myapp:9/"),
        ("ws://bücher.test/é", "ws://xn--bcher-kva.test/%C3%A9"),
        ("ws://xn--bcher-kva.test/%C3%A9", "ws://BÜCHER.test/é"),
        ("ws://127.1:9/", "ws://2130706433:9"),
        ("ws://a/b/../c/*", "ws://a/c/d"),
        ("ws://*.test/x", "ws://evil/?.test/x"),
        ("ws://*/chat", "ws://a/b/chat"),
        ("ws://*", "ws://a/b"),
        ("ws://my*", "ws://myapp/b"),
        ("ws*://a/", "wss://a/"),
        ("http*", "https://a/"),
        ("**a**", "ws://a/"),
        ("*://user", "http://joe:secret@user/#top"),
    ],
)
def test_pattern_and_url_match(pattern: str, url: str) -> None:
    assert InterceptedURLs([(pattern, 1)]).match(url) is not None


@pytest.mark.parametrize(
    ("pattern", "url"),
    [
        ("ws://myapp/*", "wss://myapp/x"),
        ("ws://myapp/*", "ws://myapp:8080/x"),
        ("ws://myapp/*", "ws://myapp.test/x"),
        ("ws://myapp/*", "ws://notmyapp/x"),
        ("ws://myapp/Chat", "ws://myapp/chat"),
        ("ws://myapp/c?at", "ws://myapp/chat"),
        ("ws://myapp/a.c", "ws://myapp/abc"),
        ("ws://myapp/[ab]", "ws://myapp/a"),
        ("ws://myapp/chat", "ws://myapp/chat?x"),
        ("ws://myapp/chat", "ws://myapp/chat/"),
        ("ws://myapp/ab*ba", "ws://myapp/aba"),
        ("ws://myapp/*ab*ab", "ws://myapp/xab"),
        ("*://myapp/*", "ws://evil/?next=://myapp/x"),
        ("*://myapp/*", "ws://evil/?next=ws://myapp/x"),
        ("ws*://a/", "http://a/"),
        ("ws://myapp:*/", "ws://myapp/"),
        ("wss://myapp:80/", "wss://myapp/"),
        ("*.Test/*", "ws://a.test/"),
        ("ws://*/", "ws://a/b"),
    ],
)
def test_pattern_and_url_do_not_match(pattern: str, url: str) -> None:
    assert InterceptedURLs([(pattern, 1)]).match(url) is None


def test_match_refuses_what_is_no_url() -> None:
    with pytest.raises(
        InvalidArgument, match=re.escape("'ftp://a' is no URL to match: it must begin with ws://")
    ):
        InterceptedURLs([("*", 1)]).match("ftp://a")


def test_a_regular_expression_must_match_all_of_the_normal_form() -> None:
    table = InterceptedURLs([(re.compile(r"ws://myapp/\d+"), 1)])
    assert table.match("WS://MyApp:80/12") is table[0]
    assert table.match("ws://myapp/12x") is None
    assert table.match("wss://x/?ws://myapp/12") is None


def test_a_callable_sees_the_normal_form_and_answers_by_truth() -> None:
    seen: list[str] = []

    def first_letter(url: str) -> bool:
        seen.append(url)
        return cast(bool, url[11:])

    table = InterceptedURLs([(first_letter, 1)])
    assert table.match("WS://MyApp") is None
    assert table.match("WS://MyApp/x") is table[0]
    assert seen == ["ws://myapp/", "ws://myapp/x"]


def test_a_callable_is_asked_only_where_no_earlier_row_matches() -> None:
    asked: list[str] = []
    table = InterceptedURLs(
        [("ws://a/*", 1), ("*z", 2), (re.compile(".*y"), 2), (cast(Pattern, asked.append), 1)]
    )
    for url in ("ws://a/", "ws://b/z", "ws://b/y", "ws://b/x"):
        table.match(url)
    assert asked == ["ws://b/x"]


def test_what_a_callable_raises_goes_to_who_asked() -> None:
    def broken(url: str) -> bool:
        raise ZeroDivisionError(url)

    with pytest.raises(ZeroDivisionError, match="ws://a/"):
        InterceptedURLs([(broken, 1)]).match("ws://a")


# --- the table ----------------------------------------------------------------------------------------------


def test_rows_are_rules_or_pairs() -> None:
    rule = Rule("ws://a/*", 2, subprotocols=["chat"])
    table = InterceptedURLs([rule, ("ws://b/*", 1), ["ws://c/*", 0]])
    assert [(row.pattern, row.mode) for row in table] == [("ws://a/*", 2), ("ws://b/*", 1), ("ws://c/*", 0)]
    assert table[0] is rule
    assert list(table[1:]) == [Rule("ws://b/*"), Rule("ws://c/*", Mode.PASS)]
    assert rule in table
    assert len(table) == 3


def test_rows_may_come_from_anywhere() -> None:
    made = InterceptedURLs(((f"ws://h{number}/", 1) for number in range(3)), root="x")
    assert made == InterceptedURLs(InterceptedURLs(list(made), root="x"), root="x")


def test_pass_is_an_answer_of_its_own() -> None:
    table = InterceptedURLs([("ws://a/public/*", 0), ("ws://a/*", 1)])
    assert table.match("ws://a/public/x") is table[0]
    assert table.match("ws://a/x") is table[1]
    assert table.match("ws://b/x") is None


def test_an_empty_table_acts_as_the_row_of_the_root() -> None:
    table = InterceptedURLs()
    assert (len(table), list(table), table.root) == (0, [], "dyalog_root")
    assert table.match("wss://Dyalog_Root/x?y") == Rule("*://dyalog_root/*", Mode.AUTO)
    assert table.match("ws://dyalog_root:8080/") is None
    assert table.match("ws://evil/?://dyalog_root/") is None
    assert table.could_match("dyalog_root:80")
    assert table.names("DYALOG_ROOT")
    assert not table.could_match("myapp")
    assert InterceptedURLs([("ws://a/", 0)]).match("ws://dyalog_root/") is None


@pytest.mark.parametrize(
    ("root", "normal", "url"),
    [
        ("MyApp", "myapp", "ws://myapp/x"),
        ("my_app:8080", "my_app:8080", "ws://my_app:8080/"),
        ("myapp:080", "myapp:80", "ws://myapp/"),
        ("bücher", "xn--bcher-kva", "wss://bücher/"),
        ("[::0]:9", "[::]:9", "ws://[::]:9/"),
    ],
)
def test_the_root_is_a_host_in_normal_form(root: str, normal: str, url: str) -> None:
    table = InterceptedURLs((), root)
    assert table.root == normal
    assert table.match(url) is not None


@pytest.mark.parametrize(
    "root", ["", "*", "my*app", "a/b", "ws://a", "a b", "u@a", "a:b", "a:65536", "[::1", "a?", "a#"]
)
def test_a_root_that_is_no_host_is_refused(root: str) -> None:
    with pytest.raises(InvalidArgument, match=r"root: .*no host name; write for instance 'myapp'"):
        InterceptedURLs((), root)


def test_a_root_is_text() -> None:
    with pytest.raises(UnsupportedType, match="root is a str, not NoneType"):
        InterceptedURLs((), cast(Any, None))


def test_tables_are_equal_by_rows_and_root() -> None:
    rows = [("ws://a/*", 1)]
    assert InterceptedURLs(rows) == InterceptedURLs([Rule("ws://a/*")])
    assert InterceptedURLs(rows) != InterceptedURLs([("ws://a/*", 2)])
    assert InterceptedURLs(rows) != InterceptedURLs(rows, root="other")
    assert InterceptedURLs(rows) != [Rule("ws://a/*")]


def test_a_table_shows_its_rows_and_a_long_one_only_the_first() -> None:
    assert repr(InterceptedURLs([("ws://a/*", 1)], "x")) == "InterceptedURLs([('ws://a/*', 1)], root='x')"
    assert "... 9990 more" in repr(InterceptedURLs([("ws://a/*", 1)] * 10_000))


def test_the_root_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        cast(Any, InterceptedURLs()).root = "x"


# --- rows that cannot be used -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (("ws://a", 3), "mode 3 of pattern 'ws://a' is not 0 (pass), 1 (auto) or 2 (manual)"),
        (("ws://a", -1), "mode -1"),
        (("ws://a", True), "mode True"),
        (("ws://a", "1"), "mode '1'"),
        (("ws://a", 1.0), "mode 1.0"),
        (("ws://a", None), "mode None"),
        (("", 1), 'it is empty; write "*" for all URLs'),
        (
            ("myapp/chat", 1),
            "pattern 'myapp/chat' cannot be used: it has no scheme; write ws://myapp/chat or *://myapp/chat",
        ),
        (("ftp://x", 1), "pattern 'ftp://x' cannot be used: its scheme is 'ftp'"),
        (("ws://a/#b", 1), "fragment"),
        (("ws://a/b c", 1), "it holds ' '"),
        ((7, 1), "pattern 7 is no str, no compiled regular expression and no callable"),
        ((b"ws://a", 1), "is no str"),
        ((re.compile(b"x"), 1), "leave out the b"),
        (("ws://a",), "has 1 elements, not 2: a row is a (pattern, mode) pair"),
        (("ws://a", 1, ()), "has 3 elements, not 2"),
        ("ws://a", "'ws://a' is no Rule and no (pattern, mode) pair"),
        (None, "None is no Rule"),
        ({"ws://a", 1}, "is no Rule"),
    ],
)
def test_a_bad_row_is_refused_by_its_number(row: object, words: str) -> None:
    with pytest.raises(InvalidRule, match=re.escape(words)) as caught:
        InterceptedURLs([("ws://fine", 1), Rule("ws://fine"), cast(Any, row)])
    assert caught.value.row == 2
    assert str(caught.value).startswith("row 2 of InterceptedURLs: ")


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("ws://a/*", "a list of rows, not 'ws://a/*'; write [('ws://a/*', 1)]"),
        (("ws://a/*", 2), "not a single one; write [('ws://a/*', 2)]"),
        (["ws://a/*", Mode.AUTO], "not a single one"),
        ((re.compile("x"), 1), "not a single one"),
        ((len, 1), "not a single one"),
        (Rule("ws://a/*"), "write [('ws://a/*', 1)]"),
        (5, "a list of rows, not 5"),
        (None, "a list of rows, not None"),
    ],
)
def test_a_row_in_place_of_the_table_is_refused(rows: object, words: str) -> None:
    with pytest.raises(InvalidRule, match=re.escape(words)) as caught:
        InterceptedURLs(cast(Any, rows))
    assert caught.value.row is None


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"mode": 3}, "mode 3"),
        ({"pattern": ""}, "it is empty"),
        ({"pattern": "ws://a/" + "\x01" * 5000}, "(5007 characters)"),
        ({"subprotocols": "chat"}, "subprotocols 'chat' is no sequence of str; write for instance ['chat']"),
        ({"subprotocols": b"chat"}, "is no sequence of str"),
        ({"subprotocols": 5}, "is no sequence of str"),
        ({"subprotocols": {"a"}}, "is no sequence of str"),
        ({"subprotocols": [5]}, "subprotocol 5 is no token"),
        ({"subprotocols": [""]}, "subprotocol '' is no token"),
        ({"subprotocols": ["a b"]}, "subprotocol 'a b' is no token"),
        ({"subprotocols": ["a\n"]}, "no token"),
        ({"subprotocols": ["é"]}, "no token"),
        ({"subprotocols": ["a", "b", "a"]}, "subprotocol 'a' is listed twice"),
        ({"chunks": 1}, "chunks 1 is not True, False or None"),
        ({"handler": "main"}, "handler 'main' cannot be called"),
    ],
)
def test_a_bad_rule_is_refused_without_a_row(values: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidRule, match=re.escape(words)) as caught:
        cast(Any, Rule)(**{"pattern": "ws://a/*", **values})
    assert caught.value.row is None
    assert len(str(caught.value)) < 500


# --- rules --------------------------------------------------------------------------------------------------


async def handler(socket: object) -> None:
    assert socket


def test_a_rule_has_defaults_and_exact_types() -> None:
    rule = Rule("ws://myapp/*")
    assert (rule.mode, rule.subprotocols, rule.chunks, rule.handler) == (Mode.AUTO, (), None, None)
    full = Rule("ws://myapp/*", 2, subprotocols=["a", "B!"], chunks=False, handler=handler)
    assert full.mode is Mode.MANUAL
    assert (full.subprotocols, full.chunks, full.handler) == (("a", "B!"), False, handler)


def test_a_rule_is_a_value() -> None:
    rule = Rule("ws://a/*", 1, subprotocols=["a"])
    assert rule == Rule("ws://a/*", Mode.AUTO, subprotocols=("a",), handler=handler)
    assert len({rule, Rule("ws://a/*", 1, subprotocols=["a"]), Rule("ws://a/*", 1)}) == 2
    assert "handler" not in repr(rule)
    with pytest.raises(dataclasses.FrozenInstanceError):
        cast(Any, rule).mode = Mode.PASS


def test_a_copy_of_a_rule_matches_as_the_rule_does() -> None:
    rule = Rule("ws://a/*", 1, chunks=True)
    for twin in (copy.deepcopy(rule), pickle.loads(pickle.dumps(rule)), dataclasses.replace(rule)):
        assert twin == rule
        assert InterceptedURLs([twin]).match("ws://a/b") is twin
    other = dataclasses.replace(rule, pattern="ws://b/*")
    assert InterceptedURLs([other]).match("ws://b/x") is other


def test_the_modes_have_the_published_numbers() -> None:
    assert (Mode.PASS, Mode.AUTO, Mode.MANUAL) == (0, 1, 2)


# --- authorities --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "authority", "could", "names"),
    [
        ("ws://myapp/chat", "myapp", True, True),
        ("ws://myapp/chat", "MYAPP:80", True, True),
        ("ws://myapp/chat", "myapp:0080", True, True),
        ("ws://myapp/chat", "myapp:443", False, False),
        ("wss://myapp/chat", "myapp", True, True),
        ("wss://myapp/chat", "myapp:443", True, True),
        ("wss://myapp/*", "myapp:80", False, False),
        ("ws://gate:8080/*", "gate:8080", True, True),
        ("ws://gate:8080/*", "gate", False, False),
        ("ws://gate/*", "gat", False, False),
        ("ws://gate/*", "gate.test", False, False),
        ("ws://127.0.0.1:9/", "127.1:9", True, True),
        ("*://myapp/", "myapp", True, True),
        ("*://[::1]:9/", "[0::1]:9", True, True),
        ("*", "evil.com", True, False),
        ("*/chat", "evil.com", True, False),
        ("*.localhost/*", "a.localhost", True, False),
        ("ws*", "evil.com", True, False),
        ("http*", "evil.com", True, False),
        ("ws://*", "evil.com", True, False),
        ("*://*/chat", "evil.com:8", True, False),
        ("ws://my*", "myapp.evil.com", True, False),
        ("ws://my*", "evil.com", False, False),
        ("ws://my*app/", "my.evil.com", True, False),
        ("ws://*.localhost/*", "a.localhost", True, True),
        ("ws://*.localhost/*", "a.b.localhost:80", True, True),
        ("ws://*.localhost/*", "localhost", True, False),
        ("ws://*.localhost/*", "a.localhost:81", True, False),
        ("ws://*.localhost:81/*", "a.localhost:81", True, True),
        ("ws://*.localhost:81/*", "a.localhost", True, False),
        ("wss://*.localhost/*", "a.localhost:443", True, True),
        ("wss://*.localhost/*", "a.localhost:80", True, False),
        ("ws://*.MyApp.Test/*", "A.myapp.test", True, True),
        ("ws://*.myapp.test/*", "evil.com", True, False),
        ("ws://*.myapp.test/*", "amyapp.test", True, False),
        ("ws://*.com/*", "evil.com", True, False),
        ("ws://*.com./*", "evil.com.", True, False),
        ("ws://*.local/*", "evil.local", True, False),
        ("ws://*/*", "a.localhost", True, False),
        ("ws://*.*.test/*", "a.b.test", True, False),
        ("ws://*.*.test/*", "a.*.test", True, False),
        ("ws://a.*.test/*", "a.b.test", True, False),
        ("ws://*.myapp.test*", "a.myapp.test", True, False),
        ("ws://*localhost/", "a.localhost", True, False),
        ("ws://*.myapp.test:*/", "a.myapp.test:8", True, False),
    ],
)
def test_authorities(pattern: str, authority: str, could: bool, names: bool) -> None:
    table = InterceptedURLs([(pattern, 1)])
    assert (table.could_match(authority), table.names(authority)) == (could, names)
    passing = InterceptedURLs([(pattern, 0)])
    assert (passing.could_match(authority), passing.names(authority)) == (False, False)


@pytest.mark.parametrize("pattern", [re.compile("ws://myapp/.*"), "ws://myapp/".__eq__])
def test_what_a_program_decides_could_match_anything_and_names_nothing(pattern: Any) -> None:
    assert InterceptedURLs([(pattern, 2)]).could_match("evil.com")
    assert not InterceptedURLs([(pattern, 2)]).names("myapp")
    assert not InterceptedURLs([(pattern, 0)]).could_match("myapp")


@pytest.mark.parametrize(
    "authority", ["", "a/b", "a?", "a#b", "u@a", "a b", "a\r\n", "a:b", "a:99999", "[::1"]
)
def test_what_is_no_authority_never_matches(authority: str) -> None:
    table = InterceptedURLs([("*", 1), (bool, 1)])
    assert not table.could_match(authority)
    assert not table.names(authority)
