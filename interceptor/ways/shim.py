"""The shim: the script by which the WebSockets of a page reach the host where no proxy brings them there."""

from __future__ import annotations

import functools
import json
import re
from importlib.resources import files

from .. import log
from ..patterns import InterceptedURLs, Mode
from .pages import SHIM_PATH

__all__ = ["function", "insert", "rows", "shim_js"]

TAG = f'<script src="{SHIM_PATH}"></script>'.encode()

UTF_8 = b"\xef\xbb\xbf"
BLANK = re.compile(rb"\s+|<!--(?:-?>|.*?--!?>)|<\?[^>]*>", re.DOTALL)
"""White space, and comments in all the forms that the HTML Standard has (13.2.5.42 and on)."""

FIRST_TAGS = [
    re.compile(rb"<%s(?=[\s/>])(?:[^>\"']|\"[^\"]*\"|'[^']*')*>" % name, re.IGNORECASE)
    for name in (b"!doctype", b"html", b"head")
]
"""What may come before the first script of a page, which would mean something else after it."""

UTF_16 = (b"\xff\xfe", b"\xfe\xff")


def shim_js(table: InterceptedURLs, base: str | None, token: str) -> str:
    """Write the script, a classic one: a module would run too late.

    Args:
        table: the rules of the moment.
        base: where the host is, such as `ws://127.0.0.1:49152`; None for the address of the page.
        token: empty where the page has it in a cookie.
    """
    rules = {scheme: rows(table, scheme) for scheme in ("ws", "wss")}
    settings = json.dumps({"base": base, "token": token, "rules": rules})
    source = re.sub(r"^export ", "", _source(), flags=re.MULTILINE)
    return f'(() => {{\n"use strict";\n{source}\ninstall({settings});\n}})();\n'


def rows(table: InterceptedURLs, scheme: str) -> list[tuple[str, bool]]:
    """Return the rules for a scheme that JavaScript can evaluate, in order, each with whether it is ours."""
    found = table.texts(scheme)
    if any(text is None for text, _ in found):
        log.get_logger().debug("the shim leaves out rules that are regular expressions or functions")
    return [(text, mode is not Mode.PASS) for text, mode in found if text is not None]


def function(name: str) -> str:
    """Return a function of the script, to be used elsewhere."""
    start = _source().index(f"function {name}(")
    return _source()[start : _source().index("\n}\n", start) + 2]


def insert(page: bytes) -> bytes:
    """Put the script first into a page of HTML."""
    if page.startswith(UTF_16):
        return page
    at = len(UTF_8) if page.startswith(UTF_8) else 0
    for tag in FIRST_TAGS:
        while match := BLANK.match(page, at):
            at = match.end()
        if match := tag.match(page, at):
            at = match.end()
    return page[:at] + TAG + page[at:]


@functools.cache
def _source() -> str:
    return files(__package__).joinpath("shim.js").read_text(encoding="utf-8")
