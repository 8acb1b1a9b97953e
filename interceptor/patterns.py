"""InterceptedURLs: which URLs the host answers, and how. Pure: compiled once, no I/O, no log.

What a string pattern means:

- `*` stands for any run of characters, also none, also `/`; every other character, `?` included, stands for
  itself.
- A `*` before `://` stands for schemes and nothing else: `*://` for all four, `ws*://` for ws and wss. So a
  query such as `?next=://myapp/` never makes another host's URL match. Any later `*` may run past the host
  into path and query.
- A pattern is brought into the normal form of URLs (see `normalize`) as far as it is literal: scheme and host
  lower-case and IDNA, no default port, no dot segments before the first `*`, non-ASCII text percent-encoded
  (as in a path up to the first `?` of the pattern, as in a query after it). `ws://myapp` is `ws://myapp/`,
  but `ws://*` is not `ws://*/`.
- The default port is dropped for each scheme by itself: `*://myapp:80/` is `ws://myapp/` and `http://myapp/`,
  but `wss://myapp:80/` and `https://myapp:80/`. After a host that ends in `*` it is refused, as dropping it
  would widen the pattern to all ports. `ws://myapp:*/` is all ports that a URL shows, so not the default one.
- Without `://` a pattern needs a `*` that can cover the scheme: `*`, `*/chat`, `*.test/*`. Where its host is
  cannot be told then, so case counts in all that follows the first `*`.
"""

from __future__ import annotations

import enum
import inspect
import re
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from operator import itemgetter
from typing import TypeAlias, overload

from .exceptions import InvalidArgument, InvalidRule, UnsupportedType
from .urls import URL, normal_authority, normal_patterns, normalize, origins, shown

__all__ = ["URL", "InterceptedURLs", "Mode", "Pattern", "RouteHandler", "Row", "Rule", "normalize"]


class Mode(enum.IntEnum):
    """What happens to a WebSocket whose URL matches a rule."""

    PASS = 0
    """Not ours: it goes to the real server untouched."""
    AUTO = 1
    """The host makes the handshake, then reports WebSocketUpgrade."""
    MANUAL = 2
    """WebSocketUpgrade is reported first, and its callback writes the answer."""


Pattern: TypeAlias = str | re.Pattern[str] | Callable[[str], bool]
RouteHandler: TypeAlias = Callable[..., Awaitable[object]]

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2

_ORIGIN = re.compile(r"[a-z]++://[^*/]++(?=/)")
_PORT = re.compile(r":[0-9]+$")
_UNDER = re.compile(r"([a-z]++://)\*(\.[^*/]++)/")
_WORD = re.compile(r"[\w-]++", re.ASCII)
# A word of a pattern that is a whole word in each URL that matches: no `*` can lengthen it.
_WHOLE_WORD = re.compile(r"(?<![\w*-])[\w-]++(?!\*)", re.ASCII)

# Suffixes of one label below which nobody can register a name (RFC 6761; .internal is kept free by ICANN).
# Not `local`: any machine of the same network may claim a name there.
_RESERVED = frozenset({"localhost", "test", "example", "invalid", "internal"})

_CROWDED = 8
"""Patterns of one literal host, or of none, above which they are filed by their words."""


# --- string patterns ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Glob:
    """A string pattern in normal form, cut at its `*`.

    Matching is linear in the length of the URL: both ends are compared once, then each piece between them is
    looked for from where the last one ended. Its leftmost place leaves most room to the rest, so nothing is
    ever tried again.
    """

    head: str
    pieces: tuple[str, ...]
    tail: str | None
    """None where the pattern has no `*`."""
    origin: str
    """`scheme://host[:port]`, empty where a `*` is part of it."""
    under: tuple[str, str] | None
    """Scheme and `.suffix[:port]` of a pattern for all hosts below a name that is not for sale."""
    words: tuple[str, ...]
    """Words that each URL which matches must hold."""

    def matches(self, url: str) -> bool:
        head, tail = self.head, self.tail or ""
        start, end = len(head), len(url) - len(tail)
        if start > end or not url.startswith(head) or not url.endswith(tail):
            return False
        for piece in self.pieces:
            start = url.find(piece, start, end)
            if start < 0:
                return False
            start += len(piece)
        return True


def _glob_of(text: str) -> _Glob:
    head, *pieces = text.split("*")
    tail = pieces.pop() if pieces else None
    origin = _ORIGIN.match(text)
    words = tuple(dict.fromkeys(_WHOLE_WORD.findall(text)))
    return _Glob(head, tuple(pieces), tail, origin[0] if origin else "", _under(text), words)


def _text_of(glob: _Glob) -> str:
    return glob.head if glob.tail is None else "*".join((glob.head, *glob.pieces, glob.tail))


def _is_for(text: str, scheme: str) -> bool:
    """Whether a pattern in normal form could match a URL of a scheme."""
    found, separator, _ = text.partition("://")
    return (
        found == scheme
        if separator and "*" not in found
        else f"{scheme}://".startswith(text.partition("*")[0])
    )


def _under(text: str) -> tuple[str, str] | None:
    match = _UNDER.match(text)
    if match is None:
        return None
    labels = match[2].partition(":")[0].strip(".").split(".")
    return (match[1], match[2]) if len(labels) > 1 or labels[0] in _RESERVED else None


# --- rules --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, init=False)
class Rule:
    """One row of InterceptedURLs: which URLs, and what happens to them.

    Attributes:
        pattern: a string (see the text of this module), a compiled regular expression (`fullmatch`), or a
            callable that is given the URL and whose result is taken as true or false. The last two see the
            URL in normal form; that they are fast on hostile URLs is the program's business, and what a
            callable raises goes to who asked.
        mode: as in `Mode`; its number is accepted.
        subprotocols: what the host chooses from, the best first, in place of its own list. Empty: as the host
            has it.
        chunks: whether messages are reported frame by frame. None: as the host has it.
        handler: what `host.route()` registered.

    Raises:
        InvalidRule: a value that cannot be used; the message names it and what would be right.
    """

    pattern: Pattern
    mode: Mode = Mode.AUTO
    _: KW_ONLY
    subprotocols: tuple[str, ...] = ()
    chunks: bool | None = None
    handler: RouteHandler | None = field(default=None, compare=False, repr=False)
    _globs: tuple[_Glob, ...] = field(init=False, compare=False, repr=False)

    def __init__(
        self,
        pattern: Pattern,
        mode: int = Mode.AUTO,
        *,
        subprotocols: Sequence[str] = (),
        chunks: bool | None = None,
        handler: RouteHandler | None = None,
    ) -> None:
        keep = object.__setattr__
        keep(self, "pattern", pattern)
        keep(self, "_globs", _globs_of(pattern))
        keep(self, "mode", _checked_mode(mode, pattern))
        keep(self, "subprotocols", _checked_subprotocols(subprotocols))
        keep(self, "chunks", _checked_chunks(chunks))
        keep(self, "handler", _checked_handler(handler))


def _globs_of(pattern: Pattern) -> tuple[_Glob, ...]:
    if isinstance(pattern, str):
        try:
            return tuple(map(_glob_of, normal_patterns(pattern)))
        except InvalidArgument as exc:
            raise InvalidRule(f"pattern {shown(pattern)} cannot be used: {exc}") from None
    if isinstance(pattern, re.Pattern) and not isinstance(pattern.pattern, str):
        raise InvalidRule(
            f"pattern {pattern!r} is for bytes, but URLs are str; leave out the b before the quotes"
        )
    if inspect.iscoroutinefunction(pattern):
        raise InvalidRule(
            f"pattern {pattern!r} is async; a pattern function is plain. Of a route the pattern comes first: "
            '@host.route("ws://myapp/chat")'
        )
    if not isinstance(pattern, re.Pattern) and not callable(pattern):
        raise InvalidRule(f"pattern {pattern!r} is no str, no compiled regular expression and no callable")
    return ()


def _checked_mode(mode: int, pattern: Pattern) -> Mode:
    if isinstance(mode, int) and not isinstance(mode, bool) and mode in tuple(Mode):
        return Mode(mode)
    raise InvalidRule(f"mode {mode!r} of pattern {pattern!r} is not 0 (pass), 1 (auto) or 2 (manual)")


def _checked_subprotocols(names: Sequence[str]) -> tuple[str, ...]:
    if isinstance(names, (str, bytes)) or not isinstance(names, Sequence):
        raise InvalidRule(f"subprotocols {names!r} is no sequence of str; write for instance ['chat']")
    for at, name in enumerate(names):
        if not isinstance(name, str) or not _TOKEN.fullmatch(name):
            raise InvalidRule(
                f"subprotocol {name!r} is no token (RFC 9110): letters, digits and !#$%&'*+-.^_`|~ only"
            )
        if name in names[:at]:
            raise InvalidRule(f"subprotocol {name!r} is listed twice")
    return tuple(names)


def _checked_chunks(chunks: bool | None) -> bool | None:
    if chunks is None or isinstance(chunks, bool):
        return chunks
    raise InvalidRule(f"chunks {chunks!r} is not True, False or None (as the host has it)")


Row: TypeAlias = Rule | tuple[Pattern, int] | list[object]
"""A row of a table; a list is such as JSON has."""


def _checked_handler(handler: RouteHandler | None) -> RouteHandler | None:
    if handler is None or callable(handler):
        return handler
    raise InvalidRule(f"handler {handler!r} cannot be called")


# --- the table ----------------------------------------------------------------------------------------------


class InterceptedURLs(Sequence[Rule]):
    """An ordered table of rules; the first one that matches a URL decides.

    An empty table has length 0 and yet acts as the one row `("*://<root>/*", Mode.AUTO)`. A table never
    changes; to change the rules of a running host, give it another one.

    Args:
        rows: each a Rule or a (pattern, mode) pair.
        root: the name by which the host's own address is known in rules and events; may have a port.

    Raises:
        InvalidRule: a row that cannot be used; the message names it, and `row` is its index.
        InvalidArgument: a root that is no host name.
    """

    __slots__ = ("_acting", "_authorities", "_index", "_root", "_rules")

    def __init__(self, rows: Iterable[Row] = (), root: str = "dyalog_root") -> None:
        self._root = _normal_root(root)
        self._rules = _rules_of(rows)
        self._acting = self._rules or (Rule(f"*://{self._root}/*"),)
        self._index = _Index(self._acting)
        self._authorities = _Authorities(self._acting)

    @property
    def root(self) -> str:
        """The host's own name, in normal form."""
        return self._root

    def match(self, url: str) -> Rule | None:
        """Return the first rule that matches a URL in any spelling, or None: then it passes.

        Raises:
            InvalidArgument: no URL that a pattern could match.
        """
        return self._index.find(normalize(url))

    def lookup(self, url: URL) -> Rule | None:
        """Return the first rule that matches a URL in normal form, or None: then it passes.

        The time is linear in the length of the URL whatever the string patterns are, and hardly depends on
        the number of rows where these name hosts or have words of their own. Callables are asked only where
        no earlier row matches.
        """
        return self._index.find(url)

    def could_match(
        self, authority: str, scheme: str = "", *, any_port: bool = False, by_text: bool = False
    ) -> bool:
        """Tell whether a row other than PASS could match some URL of this `host[:port]`.

        Wildcards count, and regular expressions and callables could match anything. The order of the rows is
        not looked at. What is no authority at all could not match.

        Args:
            authority: the host in any spelling.
            scheme: such as `wss`; empty: whatever scheme.
            any_port: whether rows for other ports of the host count too.
            by_text: whether only rows count whose pattern is a string.
        """
        found = origins(authority)
        return self._authorities.could_match(found, f"{scheme}:" if scheme else "", any_port, by_text)

    def names(self, authority: str) -> bool:
        """Tell whether a row other than PASS names this `host[:port]`, in whatever scheme.

        A row names its host if that is literal, or if it is `*.` before a literal name below which no
        stranger gets a name: two labels or more (`*.myapp.test`), or one that is reserved (`*.localhost`). A
        stranger may own a name that `*`, `my*` or `*.com` matches, let it lead to a loopback address (DNS
        rebinding), and his page would then pass for one of the program's own hosts. So these do not name, and
        no more do regular expressions and callables. The order of the rows is not looked at.
        """
        return self._authorities.names(authority)

    def texts(self, scheme: str) -> list[tuple[str | None, Mode]]:
        """Return the acting rows as far as they are for one scheme, for somebody else to match.

        Args:
            scheme: such as `ws`.

        Returns:
            In order, each row's pattern in normal form, where `*` stands for any run of characters, and its
            mode. The text is None where the pattern is no string, so that it may match anything.
        """
        found: list[tuple[str | None, Mode]] = []
        for rule in self._acting:
            own = [text for text in map(_text_of, rule._globs) if _is_for(text, scheme)]
            found += [(text, rule.mode) for text in (own if rule._globs else [None])]
        return found

    def __len__(self) -> int:
        return len(self._rules)

    @overload
    def __getitem__(self, at: int) -> Rule: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Rule]: ...
    def __getitem__(self, at: int | slice) -> Rule | Sequence[Rule]:
        return self._rules[at]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, InterceptedURLs):
            return NotImplemented
        return self._rules == other._rules and self._root == other._root

    def __repr__(self) -> str:
        rows = [f"({rule.pattern!r}, {int(rule.mode)})" for rule in self._rules[:10]]
        if len(self) > len(rows):
            rows.append(f"... {len(self) - len(rows)} more")
        return f"InterceptedURLs([{', '.join(rows)}], root={self._root!r})"


def _normal_root(root: str) -> str:
    if not isinstance(root, str):
        raise UnsupportedType(f"root is a str, not {type(root).__name__}: {root!r}")
    try:
        return normal_authority(root)
    except InvalidArgument as exc:
        raise InvalidArgument(f"root: {exc}") from None


def _rules_of(rows: Iterable[object]) -> tuple[Rule, ...]:
    if isinstance(rows, Mapping):
        raise InvalidRule(f"InterceptedURLs takes rows, not a mapping; write {list(rows.items())!r}")
    if isinstance(rows, (str, Rule)) or not isinstance(rows, Iterable):
        raise InvalidRule(
            f"InterceptedURLs takes a list of rows, not {rows!r}; write [({_pattern_of(rows)!r}, 1)]"
        )
    if isinstance(rows, (list, tuple)) and len(rows) == 2 and _is_pair(*rows):
        raise InvalidRule(f"InterceptedURLs takes a list of rows, not a single one; write [{tuple(rows)!r}]")
    return tuple(_rule_of(index, row) for index, row in enumerate(rows))


def _pattern_of(rows: object) -> object:
    return rows.pattern if isinstance(rows, Rule) else rows if isinstance(rows, str) else "ws://myapp/*"


def _is_pair(first: object, second: object) -> bool:
    return (isinstance(first, (str, re.Pattern)) or callable(first)) and isinstance(second, int)


def _rule_of(index: int, row: object) -> Rule:
    if isinstance(row, Rule):
        return row
    if not isinstance(row, (list, tuple)):
        raise InvalidRule(f"{row!r} is no Rule and no (pattern, mode) pair", index)
    if len(row) != 2:
        raise InvalidRule(f"{row!r} has {len(row)} elements, not 2: a row is a (pattern, mode) pair", index)
    try:
        return Rule(*row)
    except InvalidRule as exc:
        raise InvalidRule(str(exc), index) from None


class _Index:
    """The rules, filed so that a lookup looks at few of them.

    A pattern without `*` is found by the URL itself, and one with a literal host by that. Where many patterns
    have the same host, or none, each is found by the rarest word that all URLs it matches must hold. What is
    left (a few patterns, regular expressions, callables) is gone through in order, but only as far as the
    best row found by then.
    """

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._answers: tuple[Rule | None, ...] = (*rules, None)
        self._exact: dict[str, int] = {}
        self._filed: defaultdict[str, list[tuple[int, _Glob]]] = defaultdict(list)
        self._rest: list[tuple[int, Callable[[str], object]]] = []
        self._by_word = False
        self._file([(at, glob) for at, rule in enumerate(rules) for glob in rule._globs])
        self._rest += [(at, _test_of(rule.pattern)) for at, rule in enumerate(rules) if not rule._globs]
        self._rest.sort(key=itemgetter(0))

    def _file(self, globs: list[tuple[int, _Glob]]) -> None:
        wild = [(at, glob) for at, glob in globs if glob.tail is not None]
        for at, glob in globs:
            if glob.tail is None:
                self._exact.setdefault(glob.head, at)
        count = Counter(key for _, glob in wild for key in (glob.origin, *glob.words))
        for at, glob in wild:
            if key := _key_of(glob, count):
                self._filed[key].append((at, glob))
                self._by_word |= key != glob.origin
            else:
                self._rest.append((at, glob.matches))

    def find(self, url: str) -> Rule | None:
        best = self._exact.get(url, len(self._answers) - 1)
        for key in self._keys(url):
            for at, glob in self._filed.get(key, ()):
                if at >= best:
                    break
                if glob.matches(url):
                    best = at  # so that the next turn ends the loop: rows of one key are in order
        for at, test in self._rest:
            if at >= best:
                break
            if test(url):
                return self._answers[at]
        return self._answers[best]

    def _keys(self, url: str) -> Iterable[str]:
        origin = url[: url.find("/", url.find(":") + 3)]
        return (origin, *set(_WORD.findall(url))) if self._by_word else (origin,)


def _key_of(glob: _Glob, count: Counter[str]) -> str:
    if count[glob.origin] <= _CROWDED:
        return glob.origin
    return min(filter(None, (glob.origin, *glob.words)), key=count.__getitem__, default="")


def _test_of(pattern: Pattern) -> Callable[[str], object]:
    if isinstance(pattern, re.Pattern):
        return pattern.fullmatch
    assert not isinstance(pattern, str)
    return pattern


class _Authorities:
    """What the rules say of hosts, whatever the path."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        live = [rule for rule in rules if rule.mode is not Mode.PASS]
        globs = [glob for rule in live for glob in rule._globs]
        self._anything = any(not rule._globs for rule in live)
        self._named = frozenset(glob.origin for glob in globs if glob.origin)
        self._heads = tuple({glob.head for glob in globs if not glob.origin})
        self._portless = frozenset(_PORT.sub("", origin) for origin in self._named)
        self._under: defaultdict[str, tuple[str, ...]] = defaultdict(tuple)
        for scheme, suffix in {glob.under for glob in globs if glob.under}:
            self._under[scheme] += (suffix,)

    def could_match(self, origins: Iterable[str], start: str, any_port: bool, by_text: bool) -> bool:
        found = [origin for origin in origins if origin.startswith(start)]
        if found and self._anything and not by_text:
            return True
        return any(map(self._is_alive, found)) or (any_port and not self._portless.isdisjoint(found))

    def _is_alive(self, origin: str) -> bool:
        # A path of our choice can hold all that follows the first * of a pattern; so its head alone decides.
        return origin in self._named or origin.startswith(self._heads)

    def names(self, authority: str) -> bool:
        return any(map(self._is_named, origins(authority)))

    def _is_named(self, origin: str) -> bool:
        scheme = origin[: origin.index("/") + 2]
        return origin in self._named or origin.endswith(self._under.get(scheme, ()))
