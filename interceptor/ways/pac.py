"""A proxy auto-configuration: the script by which a browser sends only some of its sockets to the host."""

from __future__ import annotations

import json
from collections.abc import Iterable

__all__ = ["pac_text"]

SCRIPT = """\
// Sockets whose URL begins with one of these go to the program; everything else goes its own way.
var PREFIXES = %s;

function FindProxyForURL(url, host) {
  url = url.toLowerCase();
  for (var i = 0; i < PREFIXES.length; i++) {
    if (url.substring(0, PREFIXES[i].length) === PREFIXES[i]) return "PROXY %s";
  }
  return "DIRECT";
}
"""


def pac_text(beginnings: Iterable[str], proxy: str) -> str:
    """Write the script.

    Args:
        beginnings: of the URLs that rules could match, as `InterceptedURLs.beginnings` has them. Of these
            only ws:// URLs are sent to the host.
        proxy: `host:port`.
    """
    prefixes = {beginning or "ws://" for beginning in beginnings}
    sockets = sorted(prefix for prefix in prefixes if "ws://".startswith(prefix[:5]))
    return SCRIPT % (json.dumps(sockets, indent=2), proxy)
