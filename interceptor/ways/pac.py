"""A proxy auto-configuration: a script by which a browser sends only the sockets of some hosts to the host."""

from __future__ import annotations

import json
from collections.abc import Iterable

__all__ = ["MEDIA_TYPE", "pac_text"]

MEDIA_TYPE = "application/x-ns-proxy-autoconfig"

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


def pac_text(prefixes: Iterable[str], proxy: str) -> str:
    """Write the script.

    Args:
        prefixes: lower-case beginnings of URLs, down to the `/` after the host at most.
        proxy: `host:port`.
    """
    return SCRIPT % (json.dumps(sorted(prefixes), indent=2), proxy)
