"""Lookups beside a slow, obvious matcher, and how much of rows and URLs they look at."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from interceptor import patterns, urls
from interceptor.patterns import URL, InterceptedURLs, Mode, Pattern, Rule, normalize

SCHEMES = ("ws", "wss", "http", "https")


# --- the slow, obvious matcher ------------------------------------------------------------------------------


def reached(pattern: str, text: str) -> set[int]:
    """How much of the pattern can have been used up when all of the text has been."""
    places = past_stars(pattern, {0})
    for char in text:
        stay = {at for at in places if pattern[at : at + 1] == "*"}
        step = {at + 1 for at in places if pattern[at : at + 1] == char and char != "*"}
        places = past_stars(pattern, stay | step)
    return places


def past_stars(pattern: str, places: set[int]) -> set[int]:
    found = set(places)
    for at in sorted(places):
        while pattern[at : at + 1] == "*":
            at += 1
            found.add(at)
    return found


def spelled_out(pattern: str) -> list[str]:
    """The pattern for each scheme: `*://` stands for a scheme only."""
    return [scheme + pattern[1:] for scheme in SCHEMES] if pattern.startswith("*://") else [pattern]


def slowly_matches(pattern: Pattern, url: str) -> bool:
    if isinstance(pattern, str):
        return any(len(one) in reached(one, url) for one in spelled_out(pattern))
    return bool(pattern.fullmatch(url) if isinstance(pattern, re.Pattern) else pattern(url))


def slow_lookup(rules: Sequence[Rule], url: str) -> Rule | None:
    return next((rule for rule in rules if slowly_matches(rule.pattern, url)), None)


def slowly_could_match(rules: Sequence[Rule], authority: str) -> bool:
    return any(
        not isinstance(rule.pattern, str)
        or any(reached(one, f"{scheme}://{authority}/") for one in spelled_out(rule.pattern))
        for rule in rules
        for scheme in SCHEMES
        if rule.mode
    )


# --- what is made up, in normal form: few letters, so that much of it matches -------------------------------

AUTHORITIES = ["a", "b", "a.b", "b.a", "a:8", "a.b:8", "ab"]
WILD_AUTHORITIES = ["*", "*.b", "a*", "*.*", "*.b:8", "*:8", "a:*", "a*b"]
ENDS = ["", "/", "/a", "/a/b", "/a-b/a", "/*", "/a/*", "/*/b", "*", "*b", "*a*b", "*/a", "*a*b*", "/*b*a*"]

texts = st.text("ab/?-", max_size=8)
globs = st.text("ab/?-**", max_size=8)
authorities = st.sampled_from(AUTHORITIES)
made_urls = st.builds("{}://{}/{}".format, st.sampled_from(SCHEMES), authorities, texts).map(URL)


def string_pattern(scheme: str, authority: str, end: str) -> str:
    whole = end.startswith("/") or (authority.endswith("*") and end[:1] in ("", "?"))
    return f"{scheme}://{authority}{'' if whole else '/'}{end}"


string_patterns = st.one_of(
    st.builds(
        string_pattern,
        st.sampled_from([*SCHEMES, "*"]),
        st.sampled_from(AUTHORITIES + WILD_AUTHORITIES),
        st.one_of(st.sampled_from(ENDS), globs),
    ),
    globs.map("*".__add__).filter(lambda text: "://" not in text),
    made_urls,
)


def as_regex(pattern: str) -> re.Pattern[str]:
    return re.compile("|".join(re.escape(one).replace(r"\*", ".*") for one in spelled_out(pattern)))


def as_callable(pattern: str) -> Callable[[str], bool]:
    return lambda url: slowly_matches(pattern, url)


modes = st.sampled_from(Mode)
string_rules = st.lists(st.builds(Rule, string_patterns, modes), max_size=12)
any_patterns = string_patterns | string_patterns.map(as_regex) | string_patterns.map(as_callable)
any_rules = st.lists(st.builds(Rule, string_patterns | any_patterns, modes), min_size=1, max_size=12)


@settings(max_examples=400)
@given(any_rules, st.lists(made_urls, min_size=1, max_size=5), st.sampled_from([0, 0, 1, 8]))
@example([Rule("*a"), Rule("ws://a/a")], [URL("ws://a/a")], 8)
@example([Rule("ws://a/*"), Rule("*://a/a")], [URL("ws://a/a"), URL("wss://a/a")], 0)
@example([Rule(re.compile(".*")), Rule("*")], [URL("ws://a/")], 8)
@example([Rule("ws://a/"), Rule("*://a/", 2)], [URL("ws://a/"), URL("wss://a/")], 8)
@example([Rule("ws://a/b*"), Rule("ws://a/*b")], [URL("ws://a/ba"), URL("ws://a/ab")], 0)
def test_the_first_row_that_matches_decides(rules: list[Rule], asked: list[URL], crowded: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(patterns, "_CROWDED", crowded)
        table = InterceptedURLs(rules)
    for url in asked:
        assert normalize(url) == url
        assert table.lookup(url) is slow_lookup(rules, url)
        assert table.match(url) is slow_lookup(rules, url)


@settings(max_examples=400)
@given(string_patterns, made_urls)
@example("*a*b*", URL("ws://h/aba"))
@example("*a*b", URL("ws://h/abab"))
def test_a_pattern_matches_what_it_says(pattern: str, url: URL) -> None:
    assert (InterceptedURLs([(pattern, 1)]).lookup(url) is not None) == slowly_matches(pattern, url)


@given(string_rules.filter(bool), authorities)
def test_could_match_knows_what_a_pattern_leaves_open(rules: list[Rule], authority: str) -> None:
    assert InterceptedURLs(rules).could_match(authority) == slowly_could_match(rules, authority)


@given(any_rules, made_urls)
def test_a_url_that_matches_has_an_authority_that_could(rules: list[Rule], url: URL) -> None:
    table = InterceptedURLs(rules)
    authority = url.split("/")[2]
    if any(rule.mode and slowly_matches(rule.pattern, url) for rule in rules):
        assert table.could_match(authority)
    if table.names(authority):
        assert table.could_match(authority)


# --- the cost of a lookup -----------------------------------------------------------------------------------


class Watched(str):
    """A URL that counts how many of its characters are looked through, and from where to where."""

    __slots__ = ("searches",)

    def __init__(self, text: str) -> None:
        self.searches: list[tuple[int, int]] = []

    def find(self, piece: str, start: Any = 0, end: Any = None) -> int:
        found = super().find(piece, start, end)
        self.searches.append((start, len(self) if found < 0 else found + len(piece)))
        return found


def glob_of(pattern: str) -> patterns._Glob:
    (text,) = urls.normal_patterns(pattern)
    return patterns._glob_of(text)


@given(string_patterns.filter(lambda text: not text.startswith("*://")), made_urls)
@example("*a*a*a*a*a*b*", URL("ws://a/" + "a" * 8192))
@example("*a*a*a*a*a*b", URL("ws://a/" + "a" * 8192))
@example("ws://a/*aab*aab*", URL("ws://a/" + "a" * 8192 + "aab" + "a" * 8192))
def test_no_pattern_looks_twice_at_any_part_of_a_url(pattern: str, url: URL) -> None:
    watched = Watched(url)
    glob_of(pattern).matches(watched)
    ends = [0, *(end for _, end in watched.searches)]
    assert all(start >= end for (start, _), end in zip(watched.searches, ends, strict=False))
    assert len(watched.searches) <= pattern.count("*")


def test_the_end_of_a_hostile_url_is_seen_before_its_middle() -> None:
    watched = Watched("ws://a/" + "a" * 65_536)
    assert not glob_of("*a*a*a*a*a*b").matches(watched)
    assert watched.searches == []


TEN_THOUSAND = {
    "each names a host": [(f"ws://host{n}.test/*", 1) for n in range(10_000)],
    "in each scheme": [(f"*://host{n}.test/*", 1) for n in range(10_000)],
    "one in a hundred is wild": [
        (f"ws://{'*.' if n % 100 == 7 else ''}host{n}.test/*", 1) for n in range(10_000)
    ],
    "each is wild": [(f"ws://*.host{n}.test/*", 1) for n in range(10_000)],
    "one host, many paths": [(f"ws://host9999.test/room{n}/*", 1) for n in range(10_000)],
    "no wildcard": [(f"ws://host9999.test/room{n}/", 1) for n in range(10_000)],
}


@pytest.mark.parametrize("rows", TEN_THOUSAND.values(), ids=TEN_THOUSAND.keys())
def test_few_of_ten_thousand_rows_are_looked_at(
    rows: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    table = InterceptedURLs(rows)
    looked: list[str] = []
    matches = patterns._Glob.matches

    def counted(glob: patterns._Glob, url: str) -> bool:
        looked.append(url)
        return matches(glob, url)

    monkeypatch.setattr(patterns._Glob, "matches", counted)
    for row in (0, 5_007, 9_999):
        url = rows[row][0].replace("*.", "sub.").replace("*://", "wss://").replace("*", "x")
        assert table.match(url) is table[row]
    assert table.match("ws://nobody.test/?://host1.test/room1") is None
    assert len(looked) <= 12


def test_a_word_that_comes_often_is_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    table = InterceptedURLs([("*/a/b", 1)] * 10)
    looked: list[str] = []

    def counted(glob: patterns._Glob, url: str) -> bool:
        looked.append(url)
        return False

    monkeypatch.setattr(patterns._Glob, "matches", counted)
    table.match("ws://h" + "/a/b" * 1000)
    assert len(looked) == 10
