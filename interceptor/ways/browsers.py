"""Settings by which browsers come to the host, in each engine's own words.

Three ways lead here. `pac`: the browser asks a script about each URL, and what the rules do not name goes its
own way. `proxy`: all that the browser asks for comes here. `resolver`: the browser takes the host for the
server of the names that rules spell out; only Chromium and what is built on it can do that.
"""

from __future__ import annotations

import base64
import dataclasses
import re
from typing import Literal, TypedDict

from ..exceptions import InvalidArgument
from ..patterns import InterceptedURLs, Mode

__all__ = [
    "QT_VARIABLE",
    "Capabilities",
    "ChromiumVia",
    "Driven",
    "FirefoxVia",
    "Here",
    "PlaywrightProxy",
    "chromium_args",
    "firefox_prefs",
    "playwright_proxy",
    "qt_flags",
    "spelled_out",
    "webdriver_capabilities",
]

ChromiumVia = Literal["pac", "proxy", "resolver"]
FirefoxVia = Literal["pac", "proxy"]
Driven = Literal["chrome", "firefox"]
Capabilities = dict[str, bool | dict[str, str | list[str]]]
"""A part of WebDriver's capabilities (https://w3c.github.io/webdriver/#capabilities)."""

QT_VARIABLE = "QTWEBENGINE_CHROMIUM_FLAGS"

NETWORK_CHECKS = "LocalNetworkAccessChecksWebSockets"
"""Chromium's check that keeps public pages from sockets on this machine."""

LOOPBACK_TOO = "<-loopback>"
"""In Chromium's list of what goes past a proxy: even loopback does not."""

LISTS = ("--disable-features", "--host-resolver-rules", "--ignore-certificate-errors-spki-list")
"""Chromium's flags that are lists. Of a flag that is there twice Chromium takes the last one."""

REPLACED = ("--proxy-server", "--proxy-bypass-list", "--proxy-pac-url", *LISTS)
"""Flags that are not kept as they were, because two ways at once are none."""

BLANKS = re.compile(r'(?:[^\s"]|"[^"]*")+')
"""One flag among those that Qt reads: blanks part them, and quotes keep what is between them together."""


PORT = re.compile(r":\d+$")


class PlaywrightProxy(TypedDict, total=False):
    """What Playwright takes as `proxy=`; of it only `server` is set."""

    server: str
    bypass: str | None
    username: str | None
    password: str | None


@dataclasses.dataclass(frozen=True, slots=True)
class Here:
    """What leads to a host.

    Attributes:
        address: `host:port`.
        names: the `host:port` that rules spell out, for `resolver`.
        pac: the text of the proxy auto-configuration, for `pac`.
        pin: base64 of the SHA-256 of the public key (SPKI) of the host's CA; empty where it has none.
    """

    address: str
    names: tuple[str, ...] = ()
    pac: str = ""
    pin: str = ""

    @property
    def proxy_url(self) -> str:
        """The host as a proxy."""
        return f"http://{self.address}"

    @property
    def pac_data_url(self) -> str:
        """The proxy auto-configuration, as a URL that needs no server."""
        script = base64.b64encode(self.pac.encode()).decode()
        return f"data:application/x-ns-proxy-autoconfig;base64,{script}"


def spelled_out(table: InterceptedURLs) -> tuple[str, ...]:
    """Return the `host:port` that rows spell out, sorted."""
    found: set[str] = set()
    for scheme, port in (("ws", 80), ("wss", 443), ("http", 80), ("https", 443)):
        ours = (text for text, mode in table.texts(scheme) if text is not None and mode is not Mode.PASS)
        names = {text.split("/")[2] for text in ours if text.count("/") >= 3}
        found |= {name if PORT.search(name) else f"{name}:{port}" for name in names if "*" not in name}
    return tuple(sorted(found))


def chromium_args(here: Here, via: str) -> list[str]:
    """Return arguments for Chromium's command line.

    Raises:
        InvalidArgument: `via` is no way of Chromium's.
    """
    _check(via, ("pac", "proxy", "resolver"))
    trust = [f"--ignore-certificate-errors-spki-list={here.pin}"] if here.pin else []
    if via == "pac":
        return [f"--proxy-pac-url={here.pac_data_url}", *trust]
    if via == "proxy":
        return [f"--proxy-server={here.proxy_url}", f"--proxy-bypass-list={LOOPBACK_TOO}", *trust]
    rules = ",".join(f"MAP {name} {here.address}" for name in here.names)
    return [f"--host-resolver-rules={rules}", f"--disable-features={NETWORK_CHECKS}", *trust]


def qt_flags(here: Here, via: str, present: str = "") -> str:
    """Return what Qt WebEngine reads from QTWEBENGINE_CHROMIUM_FLAGS.

    Args:
        here: the host.
        via: as for Chromium.
        present: what is in the variable already. It is kept, and lists are joined, ours first; but flags for
            another proxy go.

    Raises:
        InvalidArgument: `via` is no such.
    """
    flags = [flag.replace('"', "") for flag in BLANKS.findall(present)]
    ours = chromium_args(here, via)
    lists: dict[str, list[str]] = {}
    for name, _, value in (flag.partition("=") for flag in [*ours, *flags]):
        if name in LISTS:
            lists.setdefault(name, []).extend(filter(None, value.split(",")))
    kept = [flag for flag in flags if _name(flag) not in REPLACED]
    kept += [flag for flag in ours if _name(flag) not in LISTS]
    kept += [f"{name}={','.join(dict.fromkeys(values))}" for name, values in lists.items()]
    return " ".join(f'"{flag}"' if " " in flag else flag for flag in kept)


def firefox_prefs(here: Here, via: str) -> dict[str, bool | int | str]:
    """Return preferences for a Firefox profile.

    Raises:
        InvalidArgument: `via` is no way of Firefox's.
    """
    _check(via, ("pac", "proxy"))
    if via == "pac":
        return {"network.proxy.type": 2, "network.proxy.autoconfig_url": here.pac_data_url}
    host, _, port = here.address.rpartition(":")
    return {
        "network.proxy.type": 1,
        "network.proxy.http": host.strip("[]"),
        "network.proxy.http_port": int(port),
        "network.proxy.ssl": host.strip("[]"),
        "network.proxy.ssl_port": int(port),
        "network.proxy.no_proxies_on": "",
        "network.proxy.allow_hijacking_localhost": True,
    }


def playwright_proxy(here: Here) -> PlaywrightProxy:
    """Return the `proxy` of Playwright's `launch` and `new_context`."""
    return {"server": here.proxy_url}


def webdriver_capabilities(here: Here, browser: str | None, via: str) -> Capabilities:
    """Return capabilities for a WebDriver session.

    Args:
        here: the host.
        browser: `chrome` adds what sends loopback here too.
        via: as for Firefox.

    Raises:
        InvalidArgument: `browser` or `via` is no such.
    """
    _check(via, ("pac", "proxy"))
    if browser not in (None, "chrome", "firefox"):
        raise InvalidArgument(f"browser is {browser!r}; it is 'chrome', 'firefox' or None")
    address = here.address
    proxy: dict[str, str | list[str]] = {"proxyType": "manual", "httpProxy": address, "sslProxy": address}
    if via == "pac":
        proxy = {"proxyType": "pac", "proxyAutoconfigUrl": here.pac_data_url}
    elif browser == "chrome":
        proxy["noProxy"] = [LOOPBACK_TOO]
    return {"proxy": proxy, "acceptInsecureCerts": True}


def _name(flag: str) -> str:
    return flag.partition("=")[0]


def _check(via: str, ways: tuple[str, ...]) -> None:
    if via not in ways:
        raise InvalidArgument(f"via is {via!r}; it is {', '.join(map(repr, ways[:-1]))} or {ways[-1]!r}")
