"""A proxy auto-configuration: the script by which a browser sends only some of its sockets to the host."""

from __future__ import annotations

import json

from ..patterns import InterceptedURLs, Mode

__all__ = ["pac_text"]

SCHEMES = ("ws", "wss")

SCRIPT = """\
// Sockets whose URL a rule matches go to the program; everything else goes its own way.
// The rules of each scheme are tried in order, [pattern, ours]; * stands for any run of characters.
var RULES = %s;

function matches(pattern, text) {
  var parts = pattern.split("*"), first = parts.shift(), last = parts.pop();
  if (last === undefined) return text === first;
  var at = first.length, end = text.length - last.length;
  if (at > end || text.substring(0, at) !== first || text.substring(end) !== last) return false;
  for (var i = 0; i < parts.length; i++) {
    var found = text.indexOf(parts[i], at);
    if (found < 0 || found + parts[i].length > end) return false;
    at = found + parts[i].length;
  }
  return true;
}

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


def pac_text(table: InterceptedURLs, proxy: str) -> str:
    """Write the script.

    Args:
        table: the rules of the moment.
        proxy: `host:port`.
    """
    return SCRIPT % (json.dumps({scheme: _rules(table, scheme) for scheme in SCHEMES}, indent=2), proxy)


def _rules(table: InterceptedURLs, scheme: str) -> list[tuple[str, bool]]:
    return [
        (f"{scheme}://*" if text is None else text, mode is not Mode.PASS)
        for text, mode in table.texts(scheme)
    ]
