"""Settings for browsers, as values; `test_engines` tries them in each engine."""

from __future__ import annotations

import base64
import re

import pytest
from playwright.async_api import ProxySettings

from interceptor import Host, InterceptedURLs, InvalidArgument, InvalidState, Security
from interceptor.ways.browsers import Here, chromium_args, firefox_prefs, qt_flags, spelled_out

HERE = Here("127.0.0.1:9", ("a.test:80", "b.test:8080"), "function FindProxyForURL() {}", "cGlu")
PAC = "data:application/x-ns-proxy-autoconfig;base64,ZnVuY3Rpb24gRmluZFByb3h5Rm9yVVJMKCkge30="
TRUST = "--ignore-certificate-errors-spki-list=cGlu"
MAP = "--host-resolver-rules=MAP a.test:80 127.0.0.1:9,MAP b.test:8080 127.0.0.1:9"
CHECKS = "--disable-features=LocalNetworkAccessChecksWebSockets"
PROXY = ["--proxy-server=http://127.0.0.1:9", "--proxy-bypass-list=<-loopback>"]
VARIABLE = "QTWEBENGINE_CHROMIUM_FLAGS"
ROWS = [("ws://myapp.test/*", 1)]


class TestChromium:
    @pytest.mark.parametrize(
        ("via", "args"),
        [
            ("pac", [f"--proxy-pac-url={PAC}", TRUST]),
            ("proxy", [*PROXY, TRUST]),
            ("resolver", [MAP, CHECKS, TRUST]),
        ],
    )
    def test_each_way(self, via: str, args: list[str]) -> None:
        assert chromium_args(HERE, via) == args

    def test_without_a_ca_nothing_is_trusted(self) -> None:
        assert chromium_args(Here("127.0.0.1:9"), "proxy") == PROXY

    @pytest.mark.parametrize("via", ["magic", "", "PAC", None])
    def test_no_such_way(self, via: str) -> None:
        with pytest.raises(InvalidArgument, match=f"{via!r}; it is 'pac', 'proxy' or 'resolver'"):
            chromium_args(HERE, via)


class TestSpelledOut:
    @pytest.mark.parametrize(
        ("row", "names"),
        [
            (("ws://a.test/*", 1), ["a.test:80"]),
            (("wss://a.test/*", 2), ["a.test:443"]),
            (("*://A.test/x", 1), ["a.test:443", "a.test:80"]),
            (("ws://a.test:8080/*", 1), ["a.test:8080"]),
            (("ws://[::1]/*", 1), ["[::1]:80"]),
            (("ws://[::1]:8080/*", 1), ["[::1]:8080"]),
            (("ws://*.a.test/*", 1), []),
            (("*", 1), []),
            (("ws://a.test/*", 0), []),
            (("http://a.test/*", 1), ["a.test:80"]),
            ((re.compile("ws://a.test/.*"), 1), []),
            (((lambda url: True), 1), []),
        ],
    )
    def test_the_names_of_a_row(self, row: tuple[str, int], names: list[str]) -> None:
        assert spelled_out(InterceptedURLs([row])) == tuple(names)

    def test_each_once_and_sorted(self) -> None:
        rows = [("ws://b.test/1", 1), ("ws://a.test/*", 1), ("ws://b.test/2", 2)]
        assert spelled_out(InterceptedURLs(rows)) == ("a.test:80", "b.test:80")


class TestQt:
    def test_blanks_are_quoted(self) -> None:
        assert qt_flags(HERE, "resolver") == f'"{MAP}" {CHECKS} {TRUST}'

    def test_what_is_there_stays(self) -> None:
        there = '--mute-audio   "--user-agent=a b" --lang="de AT"'
        assert qt_flags(HERE, "proxy", there) == " ".join(
            ["--mute-audio", '"--user-agent=a b"', '"--lang=de AT"', *PROXY, TRUST]
        )

    @pytest.mark.parametrize(
        "there",
        [
            "--proxy-server=http://other:1 --proxy-bypass-list=x",
            "--proxy-pac-url=data:,x",
            qt_flags(HERE, "proxy"),
        ],
    )
    def test_another_way_gives_way(self, there: str) -> None:
        assert qt_flags(HERE, "proxy", there) == " ".join([*PROXY, TRUST])

    def test_lists_are_joined(self) -> None:
        """Of a flag that is there twice Chromium takes the last one alone."""
        there = (
            "--disable-features=A,B --ignore-certificate-errors-spki-list=eA== "
            '--host-resolver-rules="MAP x y,MAP a.test z"'
        )
        assert qt_flags(HERE, "resolver", there) == " ".join(
            [f'"{MAP},MAP x y,MAP a.test z"', f"{CHECKS},A,B", f"{TRUST},eA=="]
        )
        assert qt_flags(HERE, "proxy", there).endswith('"--host-resolver-rules=MAP x y,MAP a.test z"')


class TestFirefox:
    def test_pac(self) -> None:
        assert firefox_prefs(HERE, "pac") == {
            "network.proxy.type": 2,
            "network.proxy.autoconfig_url": PAC,
        }

    @pytest.mark.parametrize(("address", "name"), [("127.0.0.1:9", "127.0.0.1"), ("[::1]:9", "::1")])
    def test_proxy(self, address: str, name: str) -> None:
        assert firefox_prefs(Here(address), "proxy") == {
            "network.proxy.type": 1,
            "network.proxy.http": name,
            "network.proxy.http_port": 9,
            "network.proxy.ssl": name,
            "network.proxy.ssl_port": 9,
            "network.proxy.no_proxies_on": "",
            "network.proxy.allow_hijacking_localhost": True,
        }

    def test_no_such_way(self) -> None:
        with pytest.raises(InvalidArgument, match="'resolver'; it is 'pac' or 'proxy'"):
            firefox_prefs(HERE, "resolver")


class TestHost:
    """What the host makes of its own address, rules and keys."""

    async def test_the_rules_of_the_moment(self) -> None:
        async with Host(ROWS) as host:
            address = f"127.0.0.1:{host.address[1]}"
            [pac, *_] = host.chromium_args()
            assert base64.b64decode(pac.partition("base64,")[2]).decode() == host.pac()
            assert host.chromium_args("resolver")[0].endswith(f"=MAP myapp.test:80 {address}")
            host.intercepted_urls = [("ws://later.test/*", 1)]
            assert host.chromium_args("resolver")[0].endswith(f"=MAP later.test:80 {address}")
            assert pac != host.chromium_args()[0]

    async def test_qt_reads_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(VARIABLE, "--mute-audio")
        async with Host(ROWS) as host:
            assert host.qt_environ() == {VARIABLE: " ".join(["--mute-audio", *host.chromium_args("proxy")])}
            monkeypatch.delenv(VARIABLE)
            assert host.qt_environ("pac") == {VARIABLE: " ".join(host.chromium_args())}

    async def test_playwright(self) -> None:
        async with Host(ROWS) as host:
            proxy: ProxySettings = host.playwright_proxy()
            assert proxy == {"server": host.proxy_url}

    async def test_webdriver(self) -> None:
        async with Host(ROWS) as host:
            address = f"127.0.0.1:{host.address[1]}"
            manual = {"proxyType": "manual", "httpProxy": address, "sslProxy": address}
            loopback = {"noProxy": ["<-loopback>"]}
            assert host.webdriver_capabilities() == {"proxy": manual, "acceptInsecureCerts": True}
            assert host.webdriver_capabilities("firefox") == host.webdriver_capabilities()
            assert host.webdriver_capabilities("chrome")["proxy"] == {**manual, **loopback}
            url = host.firefox_prefs("pac")["network.proxy.autoconfig_url"]
            pac = {"proxyType": "pac", "proxyAutoconfigUrl": url}
            assert host.webdriver_capabilities("chrome", "pac") == {"proxy": pac, "acceptInsecureCerts": True}
            with pytest.raises(InvalidArgument, match="'safari'; it is 'chrome', 'firefox' or None"):
                host.webdriver_capabilities("safari")  # type: ignore[arg-type]
            with pytest.raises(InvalidArgument, match="'resolver'; it is 'pac' or 'proxy'"):
                host.webdriver_capabilities(via="resolver")  # type: ignore[arg-type]

    async def test_webkit(self) -> None:
        async with Host(ROWS) as host:
            assert host.webkit_proxy_uri == host.proxy_url

    async def test_only_the_resolver_does_without_a_proxy(self) -> None:
        for host in (Host(ROWS, proxy=False), Host(ROWS, security=Security(allow_remote=True))):
            async with host:
                assert host.chromium_args("resolver")
                assert host.qt_environ("resolver")
                for settings in (
                    host.chromium_args,
                    lambda host=host: host.chromium_args("proxy"),
                    host.qt_environ,
                    host.firefox_prefs,
                    host.playwright_proxy,
                    host.webdriver_capabilities,
                    lambda host=host: host.webkit_proxy_uri,
                ):
                    with pytest.raises(InvalidState, match="no proxy"):
                        settings()

    async def test_a_host_that_is_not_running(self) -> None:
        with pytest.raises(InvalidState, match="not started"):
            Host(ROWS).chromium_args("resolver")


async def test_settings_for_a_way_that_is_off_are_refused() -> None:
    async with Host([("ws://myapp.test/*", 1)], proxy=["socks5"]) as host:
        for via in ("pac", "proxy"):
            with pytest.raises(InvalidState, match="'connect', which is off"):
                host.chromium_args(via)
    async with Host([("ws://myapp.test/*", 1)], direct=False) as host:
        with pytest.raises(InvalidState, match="'direct', which is off"):
            host.chromium_args("resolver")


async def test_resolver_without_a_name_is_refused() -> None:
    async with Host([("ws://*.test/*", 1)]) as host:
        with pytest.raises(InvalidState, match="take via='pac'"):
            host.chromium_args("resolver")
