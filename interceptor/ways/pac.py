"""A proxy auto-configuration: the script by which a browser sends only some of its sockets to the host."""

from __future__ import annotations

import json

from ..patterns import InterceptedURLs, Mode
from .shim import function

__all__ = ["pac_text"]

SCHEMES = ("ws", "wss", "http", "https")

SCRIPT = """\
// What a rule matches goes to the program; everything else goes its own way.
// The rules of each scheme are tried in order, [pattern, ours]; * stands for any run of characters.
var RULES = %s;

%s

function FindProxyForURL(url, host) {
  var scheme = url.substring(0, url.indexOf(":")).toLowerCase(), rules = RULES[scheme] || [];
  var slash = url.indexOf("/", scheme.length + 3), shown = slash >= 0 && slash < url.length - 1;
  var origin = slash < 0 ? url : url.substring(0, slash);
  for (var i = 0; i < rules.length; i++) {
    var pattern = rules[i][0], ours = rules[i][1];
    // Some browsers do not show the path: then the host alone decides, and only for what is ours.
    var start = pattern.split("/").slice(0, 3).join("/");
    if (shown ? matches(pattern, url) : ours && (matches(start, origin) || matches(pattern, url))) {
      return ours ? "PROXY %s" : "DIRECT";
    }
  }
  return "DIRECT";
}
"""


def pac_text(table: InterceptedURLs, proxy: str, *, pages: bool = False) -> str:
    """Write the script.

    Args:
        table: the rules of the moment.
        proxy: `host:port`.
        pages: whether pages at the root come here besides what the rules match.
    """
    rules = {scheme: _rules(table, scheme) for scheme in SCHEMES}
    if pages:
        rules["http"].append((f"http://{table.root}/*", True))
    return SCRIPT % (json.dumps(rules, indent=2), function("matches"), proxy)


def _rules(table: InterceptedURLs, scheme: str) -> list[tuple[str, bool]]:
    """Return rows; of what is no string all sockets could be meant, but hardly all pages of the world."""
    anything = f"{scheme}://*" if scheme in ("ws", "wss") else None
    found = ((anything if text is None else text, mode) for text, mode in table.texts(scheme))
    return [(text, mode is not Mode.PASS) for text, mode in found if text is not None]
