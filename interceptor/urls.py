"""The normal form of URLs, after the WHATWG URL Standard, and of the patterns that are compared with them.

Only text is compared later on, so all spellings of one URL must become one text here. Three things differ
from the standard, on purpose: a user name and password are dropped (no browser sends them), the fragment is
dropped, and host names are checked less strictly (no Bidi rule, no joiner contexts, labels that begin with
`xn--` are taken as they are). A name can so pass here that a browser refuses; such a URL never arrives.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import NewType
from urllib.parse import quote, unquote

from .exceptions import InvalidArgument, UnsupportedType

__all__ = [
    "DEFAULT_PORTS",
    "SCHEMES",
    "URL",
    "normal_authority",
    "normal_patterns",
    "normalize",
    "origins",
    "shown",
]

URL = NewType("URL", str)
"""A URL in normal form, as `normalize` returns it."""

DEFAULT_PORTS = {"ws": 80, "wss": 443, "http": 80, "https": 443}
SCHEMES = tuple(DEFAULT_PORTS)

_LONGEST_NAME = 253
"""Characters of a host name that is not ASCII. The DNS carries no more, and mapping one is not linear."""

# A URL that is normal already, in the spellings that are usual; all others take the long way. The quantifiers
# of characters are possessive, those of groups are not: with them Python 3.11.2 takes what is not normal.
_NORMAL = re.compile(
    r"(?:wss?|https?)://"
    r"(?:127\.0\.0\.1|(?:[a-z0-9_-]++\.)*[a-z_][a-z0-9_-]*+)"
    r"(?::(?!(?:80|443)/)(?:[1-5][0-9]{4}|[1-9][0-9]{0,3}))?"
    r"(?:/(?!\.|%2[eE])[!$%&'()*+,\-.0-9:;=@A-Z\[\]_a-z|~]*+)+"
    r"(?:\?[!$-&(-;=?-~]*+)?"
)
_HOST_PORT = re.compile(r"(\[[^\[\]]*\]|[^:\[\]]*)(?::([0-9*]*))?")
_NOT_AUTHORITY = re.compile(r"[\s\x00-\x1f/\\?#@]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")

_C0_AND_SPACE = "".join(map(chr, range(0x21)))
_TAB_AND_NEWLINE = dict.fromkeys(map(ord, "\t\n\r"))
_SAFE_IN_PATH = "!$%&'()*+,-./:;=@[]_|~"
_SAFE_IN_QUERY = "!$%&()*+,-./:;=?@[\\]^_`{|}~"
_DOT = frozenset({".", "%2e"})
_DOT_DOT = frozenset({"..", ".%2e", "%2e.", "%2e%2e"})

_PATTERN_SCHEME = re.compile(r"[A-Za-z*][A-Za-z0-9+.*-]*")
_BLANK = re.compile(r"[\s\x00-\x1f\x7f-\x9f]")

_FORBIDDEN_IN_HOST = re.compile(r"[\x00-\x20\x7f#%/:<>?@\[\\\]^|]")
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9a-fA-F]*")
_ZEROS = re.compile(r"\b0(?::0)+\b")

# UTS #46: left out of a name, before anything else is done with it.
_INVISIBLE = (0xAD, 0x34F, 0x180B, 0x180C, 0x180D, 0x180F, 0x200B, 0x2060, 0x2064, 0xFEFF)
_VARIATIONS = (*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))
_SHORTHAND = range(0x1BCA0, 0x1BCA4)
_IGNORED = dict.fromkeys((*_INVISIBLE, *_VARIATIONS, *_SHORTHAND))
_NO_NAME_CATEGORIES = frozenset({"Cc", "Cf", "Co", "Cs", "Zl", "Zp", "Zs"})
_JOINERS = "\u200c\u200d"
# Compatibility forms that hold a full stop ("1." as one character); a browser refuses them.
_DIGIT_FULL_STOP = re.compile("[\u2488-\u249b]")


def normalize(url: str) -> URL:
    """Return the URL in normal form (WHATWG URL Standard, without user name, password and fragment).

    Scheme and host are lower-case, the host is IDNA (UTS #46, non-transitional) or an IP address in its one
    spelling, a default port is left out, the path is at least `/` and has no dot segments, and what may not
    stand in a path or query is percent-encoded. Percent-encoding that is there already is kept as it is, and
    so is an empty query (`?`).

    Args:
        url: absolute URL, in any spelling that a browser takes.

    Raises:
        InvalidArgument: there is no such URL; the message names it and the fault.
        UnsupportedType: not a str.
    """
    if not isinstance(url, str):
        raise UnsupportedType(f"a URL is a str, not {type(url).__name__}: {url!r}")
    if _NORMAL.fullmatch(url):
        return URL(url)
    try:
        return _parse(url)
    except InvalidArgument as exc:
        raise InvalidArgument(f"{shown(url)} is no URL to match: {exc}") from None


def origins(authority: str) -> tuple[str, ...]:
    """Return `scheme://host[:port]` in normal form for each scheme, or nothing if no URL has this authority.

    Args:
        authority: host and optional port in any spelling, as in a Host field or a CONNECT request.
    """
    if not isinstance(authority, str) or not authority or _NOT_AUTHORITY.search(authority):
        return ()
    try:
        return tuple(normalize(f"{scheme}://{authority}/")[:-1] for scheme in SCHEMES)
    except InvalidArgument:
        return ()


def normal_authority(authority: str) -> str:
    """Return a literal `host[:port]` in normal form, a default port kept as no scheme is known.

    Raises:
        InvalidArgument: no URL has this authority, or it holds a `*`.
    """
    found = origins(authority)
    if not found or "*" in found[0]:
        raise InvalidArgument(f"{shown(authority)} is no host name; write for instance 'myapp' or 'myapp:80'")
    host, port = split_authority(authority)
    return normal_host(host) + (f":{port.lstrip('0') or 0}" if port else "")


def shown(text: str) -> str:
    """Return the text as it should stand in a message: quoted, and cut where it is long."""
    quoted = repr(text[:200])
    return (
        quoted if len(quoted) <= 202 and len(text) <= 200 else f"{quoted[:200]}... ({len(text)} characters)"
    )


def _parse(url: str) -> URL:
    text = repair(url.strip(_C0_AND_SPACE).translate(_TAB_AND_NEWLINE))
    scheme, colon, rest = text.partition(":")
    scheme = scheme.lower()
    if not colon or scheme not in DEFAULT_PORTS:
        raise InvalidArgument("it must begin with ws://, wss://, http:// or https://")
    before, mark, query = rest.partition("#")[0].partition("?")
    authority, _, path = before.replace("\\", "/").lstrip("/").partition("/")
    host, port = split_authority(authority.rpartition("@")[2])
    origin = f"{scheme}://{normal_host(host)}{normal_port(scheme, port)}"
    return URL(origin + normal_path("/" + path) + mark + encode_query(query))


def repair(text: str) -> str:
    """Join surrogates that are a pair; put U+FFFD for those that stand alone."""
    if not _SURROGATE.search(text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


# --- authority ----------------------------------------------------------------------------------------------


def split_authority(authority: str) -> tuple[str, str]:
    """Return host (brackets included) and port (digits, and `*` in a pattern), empty where none is given."""
    if not authority:
        raise InvalidArgument("it has no host")
    match = _HOST_PORT.fullmatch(authority)
    if match is None:
        raise InvalidArgument(f"{shown(authority)} is not a host, or host:port with digits as the port")
    return match[1], match[2] or ""


def normal_port(scheme: str, port: str) -> str:
    """Return `:port` in normal form, or an empty text for none and for the scheme's default."""
    digits = port.lstrip("0") or port[:1]
    if not digits:
        return ""
    if "*" in port or len(digits) > 5 or int(digits) > 65535:
        raise InvalidArgument(f"port {shown(port)} is not in 0..65535")
    return "" if int(digits) == DEFAULT_PORTS[scheme] else f":{digits}"


@lru_cache(maxsize=256)  # A page asks for the same few, again and again.
def normal_host(host: str) -> str:
    """Return the host in normal form: an IDNA name, a dotted quad, or an IPv6 address in brackets."""
    if host.startswith("["):
        return f"[{_ipv6(host[1:-1])}]"
    name = normal_name(unquote(host, errors="replace") if "%" in host else host)
    address = _ipv4(name)
    return name if address is None else address


def normal_name(name: str) -> str:
    """Return a host name in lower-case ASCII (UTS #46, non-transitional), numbers as they are."""
    text = name.lower() if name.isascii() else _idna(name)
    if not text:
        raise InvalidArgument("it has no host")
    if fault := _FORBIDDEN_IN_HOST.search(text):
        raise InvalidArgument(f"a host name cannot hold {fault[0]!r}")
    return text


def _ipv6(text: str) -> str:
    try:
        if "%" in text:
            raise ValueError("a zone has no place in a URL")
        packed = ipaddress.IPv6Address(text).packed
    except ValueError as exc:
        raise InvalidArgument(f"[{text[:60]}] is no IPv6 address ({exc})") from None
    full = ":".join(f"{packed[at] << 8 | packed[at + 1]:x}" for at in range(0, 16, 2))
    zeros = max(_ZEROS.finditer(full), key=lambda run: len(run[0]), default=None)
    if zeros is None:
        return full
    return f"{full[: zeros.start()].removesuffix(':')}::{full[zeros.end() :].removeprefix(':')}"


def _ipv4(name: str) -> str | None:
    """Return a dotted quad for a name that ends in a number (127.1, 0x7f.1, 2130706433), else None."""
    parts = name.removesuffix(".").split(".")
    if not _NUMBER.fullmatch(parts[-1]):
        return None
    values = [_number(part) for part in parts]
    room = 256 ** (5 - len(parts)) if len(parts) <= 4 else 0
    if values[-1] >= room or max(values[:-1], default=0) > 255:
        raise InvalidArgument(f"{shown(name)} ends in a number but is no IPv4 address")
    high = sum(value << 8 * (3 - at) for at, value in enumerate(values[:-1]))
    return str(ipaddress.IPv4Address(high + values[-1]))


def _number(part: str) -> int:
    """Read decimal, 0x hexadecimal or 0 octal as the standard does; what is too long comes out as 2**32."""
    base = 16 if part.startswith("0x") else 8 if part.startswith("0") else 10
    digits = part[2 if base == 16 else 0 :].lstrip("0")
    if not _NUMBER.fullmatch(part) or (base == 8 and not set(digits) <= set("01234567")):
        raise InvalidArgument(f"the host ends in a number, but {shown(part)} is no part of an IPv4 address")
    return 2**32 if len(digits) > 11 else int(digits or "0", base)


def _idna(name: str) -> str:
    if len(name) > _LONGEST_NAME:
        raise InvalidArgument(f"a host name that is not ASCII has at most {_LONGEST_NAME} characters")
    if _DIGIT_FULL_STOP.search(name):
        raise InvalidArgument("a host name cannot hold a digit and a full stop in one character")
    mapped = unicodedata.normalize("NFKC", "".join(map(_fold, name.translate(_IGNORED))))
    return ".".join(map(_label, mapped.replace("\u3002", ".").split(".")))


def _fold(char: str) -> str:
    # casefold() is UTS #46's mapping but for these, which are letters of their own in IDNA 2008.
    if char in "ßẞς":
        return char.lower()
    return unicodedata.normalize("NFKC", char).casefold()


def _label(label: str) -> str:
    if label.isascii():
        return label
    fault = next((char for char in label if _is_no_letter(char)), None)
    if unicodedata.category(label[0]).startswith("M"):
        fault = label[0]
    if fault is not None or label.startswith("xn--"):
        raise InvalidArgument(f"a host name cannot hold {fault or label!r} here")
    return "xn--" + label.encode("punycode").decode("ascii")


def _is_no_letter(char: str) -> bool:
    return char == "\ufffd" or (unicodedata.category(char) in _NO_NAME_CATEGORIES and char not in _JOINERS)


# --- path and query -----------------------------------------------------------------------------------------


def normal_path(path: str) -> str:
    """Return a path that begins with `/` in normal form: no dot segments, percent-encoded."""
    return encode_path(_without_dots(path))


def encode_path(text: str) -> str:
    """Percent-encode what may not stand in a path (WHATWG's path percent-encode set)."""
    return quote(text, safe=_SAFE_IN_PATH)


def encode_query(text: str) -> str:
    """Percent-encode what may not stand in a query of these schemes (special-query percent-encode set)."""
    return quote(text, safe=_SAFE_IN_QUERY)


def _without_dots(path: str) -> str:
    kept: list[str] = []
    segments = path.split("/")[1:]
    for segment in segments:
        dots = segment.lower()
        if dots in _DOT_DOT:
            del kept[-1:]
        elif dots not in _DOT:
            kept.append(segment)
    if segments[-1].lower() in _DOT | _DOT_DOT:
        kept.append("")
    return "/" + "/".join(kept)


# --- patterns -----------------------------------------------------------------------------------------------


def normal_patterns(pattern: str) -> tuple[str, ...]:
    """Return a string pattern in normal form, once for each scheme that it names.

    Without `://` there is one result, whose `*` covers the scheme.

    Raises:
        InvalidArgument: no URL could ever match, or it cannot be told what is meant.
    """
    _check_pattern(pattern)
    pattern = repair(pattern)
    scheme, mark, rest = pattern.partition("://")
    if mark and _PATTERN_SCHEME.fullmatch(scheme):
        return tuple(f"{one}://{_normal_rest(one, rest)}" for one in _schemes(scheme, rest))
    head, star, tail = pattern.partition("*")
    if not star or not any(f"{one}://".startswith(head.lower()) for one in SCHEMES):
        example = f"HOST{pattern[:80]}" if pattern.startswith("/") else pattern[:80]
        raise InvalidArgument(f"it has no scheme; write ws://{example} or *://{example}")
    return (head.lower() + star + _encode(tail),)


def _check_pattern(pattern: str) -> None:
    if not pattern:
        raise InvalidArgument('it is empty; write "*" for all URLs')
    if blank := _BLANK.search(pattern):
        raise InvalidArgument(f"it holds {blank[0]!r}; write that percent-encoded, as it stands in a URL")
    if "#" in pattern:
        raise InvalidArgument("it holds a fragment (#), which never reaches a server; leave that out")


def _schemes(scheme: str, rest: str) -> list[str]:
    found = [one for one in SCHEMES if fnmatchcase(one, scheme.lower())]
    if not found:
        wanted = "ws, wss, http, https or * for all of them"
        raise InvalidArgument(f"its scheme is {scheme[:80]!r}; write {wanted}, as in *://{rest[:80]}")
    return found


def _normal_rest(scheme: str, rest: str) -> str:
    """Bring what follows `scheme://` into normal form."""
    before, mark, query = rest.partition("?")
    authority, slash, path = before.replace("\\", "/").partition("/")
    if "@" in authority:
        raise InvalidArgument("it holds a user name (@), which never reaches a server; leave that out")
    origin = _normal_authority(scheme, authority)
    if not slash and authority.endswith("*"):
        return origin + mark + encode_query(query)
    return origin + _normal_path(path) + mark + encode_query(query)


def _normal_path(path: str) -> str:
    """Remove dot segments where all is literal; what follows the first `*` may be a path or a query."""
    cut = path.rfind("/", 0, path.index("*")) + 1 if "*" in path else len(path)
    return normal_path("/" + path[:cut]) + encode_path(path[cut:])


def _encode(text: str) -> str:
    before, mark, query = text.partition("?")
    return encode_path(before.replace("\\", "/")) + mark + encode_query(query)


def _normal_authority(scheme: str, authority: str) -> str:
    host, port = split_authority(authority)
    name = _wild_name(host) if "*" in host else normal_host(host)
    if name.count("*") != host.count("*"):
        raise InvalidArgument(f"its host {shown(host)} spells a * in another way; write * itself")
    ending = f":{port}" if "*" in port else normal_port(scheme, port)
    if port and not ending and name.endswith("*"):
        raise InvalidArgument(
            f"{scheme} URLs never show port {port}, so {name} would be all ports; leave it out"
        )
    return name + ending


def _wild_name(host: str) -> str:
    if any("*" in label and not label.isascii() for label in host.split(".")):
        raise InvalidArgument(
            f"its host {shown(host)} has a * in a label that is not ASCII; write it in full"
        )
    return normal_name(host)
