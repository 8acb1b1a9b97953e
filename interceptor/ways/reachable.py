"""How a host is reached: its URLs, and what each browser is told."""

from __future__ import annotations

import ipaddress
import os

from ..exceptions import InvalidArgument, InvalidState
from ..patterns import normalize
from ..sessions import Sessions
from . import browsers
from .direct import SPELLED_OUT
from .door import Way
from .files import Files
from .guard import Guard
from .pac import pac_text
from .pages import PAC_PATH
from .shim import shim_js
from .tls import Ends

__all__ = ["Reachable"]


class Reachable:
    """The part of a Host that tells others how to come to it."""

    _sessions: Sessions
    _guard: Guard
    _ways: frozenset[Way]
    _ends: Ends
    _files: Files | None

    @property
    def address(self) -> tuple[str, int]:
        """The address that the host listens on."""
        raise NotImplementedError

    # Its URLs.

    def http_url(self, path: str = "/", *, token: bool = False) -> str:
        """Return the URL of a path at the host's own address.

        Args:
            path: with its query.
            token: put the token into it, for programs, and for pages of others that link to it.
        """
        url = f"http://{self._authority()}/{path.removeprefix('/')}"
        return self._guard.with_token(url) if token else url

    def ws_url(self, target: str = "/", *, token: bool = True) -> str:
        """Return a URL, with the token in it, that any program on this machine can connect to.

        Args:
            target: a path at the root, or a whole URL of any name that a rule has.
            token: False leaves the token out, for pages whose origin may connect.

        Raises:
            InvalidArgument: the target is no such.
            InvalidState: the host is not running.
        """
        if not isinstance(target, str) or not (target.startswith("/") or "://" in target):
            raise InvalidArgument(f"{target!r} is neither a path, such as '/chat', nor a whole ws:// URL")
        path = target if target.startswith("/") else self._spelled_out(target)
        path = normalize(f"ws://x{path}").removeprefix("ws://x")
        url = f"ws://{self._authority()}{path}"
        return self._guard.with_token(url) if token else url

    def _spelled_out(self, target: str) -> str:
        scheme, _, rest = normalize(target).partition("://")
        authority, _, path = rest.partition("/")
        if authority == self._sessions.table.root or self._guard.is_own(authority):
            return f"/{path}"
        return f"{SPELLED_OUT}{scheme}/{authority}/{path}"

    def _authority(self) -> str:
        host, port = self.address
        if ipaddress.ip_address(host).is_unspecified:
            host = "::1" if ":" in host else "127.0.0.1"  # Listening everywhere; a client needs one address.
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    # Settings for browsers.

    @property
    def _is_proxy(self) -> bool:
        return bool(self._ways - {"direct"})

    @property
    def proxy_url(self) -> str:
        """The host as a proxy, for a browser's settings.

        Raises:
            InvalidState: the host is not running, or was made with proxy=False.
        """
        if not self._is_proxy:
            raise InvalidState(
                "this host is no proxy: it was made with proxy=False, or with allow_remote; leave that out, "
                'or take via="resolver" where there is such a way'
            )
        return f"http://{self._authority()}"

    def pac(self) -> str:
        """Return a proxy auto-configuration that sends the sockets of the rules' hosts here, no more.

        It is right for the rules of this moment.
        """
        address = self.proxy_url.removeprefix("http://")
        return pac_text(self._sessions.table, address, pages=self._files is not None)

    @property
    def pac_url(self) -> str:
        """The URL of `pac()`, with the token in it; what is read there is right for the rules of that moment.

        Raises:
            InvalidState: the host is not running, or is no proxy.
        """
        self.proxy_url  # noqa: B018  # refuses
        return self.http_url(PAC_PATH, token=True)

    def shim_js(self) -> str:
        """Return a script that sends the WebSockets of a page here whose URL a rule matches.

        It has to run before any other script of the page, in pages of yours only: the token is in it. Pages
        that the host serves have it already. It is right for the rules of this moment.

        Raises:
            InvalidState: the host is not running.
        """
        return shim_js(self._sessions.table, f"ws://{self._authority()}", self._guard.token)

    def _page_shim(self) -> str:
        return shim_js(self._sessions.table, None, "")

    @property
    def spki_pin(self) -> str:
        """Base64 of the SHA-256 of the public key of the host's certificate authority (SPKI, RFC 7469)."""
        return self._ends.authority.pin

    @property
    def ca_pem(self) -> str:
        """The host's certificate authority, PEM; for a browser's own store, never for a system's."""
        return self._ends.authority.pem

    # Each of these raises InvalidArgument for a `via` that is none, and InvalidState where the host is not
    # running or is no proxy. `resolver` needs no proxy.

    def chromium_args(self, via: browsers.ChromiumVia = "pac") -> list[str]:
        """Return arguments for Chromium's command line, by which the URLs of the rules reach the host.

        Args:
            via: `pac`: any host that a rule could match, and all else goes its own way. `proxy`: all that the
                browser asks for, loopback too. `resolver`: the names that rules spell out, all of each.
        """
        return browsers.chromium_args(self._here(via), via)

    def qt_environ(self, via: browsers.ChromiumVia = "proxy") -> dict[str, str]:
        """Return what goes into `os.environ` before the QApplication is made, for Qt WebEngine.

        Flags that are in QTWEBENGINE_CHROMIUM_FLAGS already stay, but for those of another way to a proxy.
        """
        present = os.environ.get(browsers.QT_VARIABLE, "")
        return {browsers.QT_VARIABLE: browsers.qt_flags(self._here(via), via, present)}

    def firefox_prefs(self, via: browsers.FirefoxVia = "pac") -> dict[str, bool | int | str]:
        """Return preferences for a Firefox profile; `via` is as for Chromium."""
        return browsers.firefox_prefs(self._here(via), via)

    def playwright_proxy(self) -> browsers.PlaywrightProxy:
        """Return the `proxy` of Playwright's `launch` and `new_context`; all comes here, loopback too."""
        return browsers.playwright_proxy(self._here("proxy"))

    def webdriver_capabilities(
        self, browser: browsers.Driven | None = None, via: browsers.FirefoxVia = "proxy"
    ) -> browsers.Capabilities:
        """Return WebDriver capabilities; for `chrome`, `proxy` brings loopback here too."""
        return browsers.webdriver_capabilities(self._here(via), browser, via)

    @property
    def webkit_proxy_uri(self) -> str:
        """The proxy for the network settings of WebKitGTK."""
        return self.proxy_url

    def _here(self, via: str) -> browsers.Here:
        address = self._authority() if via == "resolver" else self.proxy_url.removeprefix("http://")
        needed = "direct" if via == "resolver" else "connect"
        if needed not in self._ways:
            raise InvalidState(
                f"via={via!r} needs the way {needed!r}, which is off; see proxy= and direct= of Host"
            )
        names = browsers.spelled_out(self._sessions.table)
        if via == "resolver" and not names:
            raise InvalidState("no rule spells out a host name, which via='resolver' needs; take via='pac'")
        return browsers.Here(address, names, self.pac() if via == "pac" else "", self.spki_pin)
