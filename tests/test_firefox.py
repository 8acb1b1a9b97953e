"""Firefox, and whose certificates it takes."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from interceptor import Host, Security

from .engines import Window, missing
from .engines.firefox import firefox
from .pages import CLEAN, PROBE, VISIT

pytestmark = [pytest.mark.engine, pytest.mark.timeout(180)]

INSECURE = {"acceptInsecureCerts": True}


def trusting(pem: str) -> Callable[[str], None]:
    """What puts a certificate authority into a profile."""
    if shutil.which("certutil") is None:
        missing("firefox", "there is no certutil (libnss3-tools)")

    def certutil(profile: str, *args: str) -> None:
        subprocess.run(["certutil", "-d", f"sql:{profile}", *args], check=True, capture_output=True)

    def prepare(profile: str) -> None:
        file = Path(profile, "ca.pem")
        file.write_text(pem)
        certutil(profile, "-N", "--empty-password")
        certutil(profile, "-A", "-n", "interceptor", "-t", "C,,", "-i", str(file))

    return prepare


async def visit(window: Window, url: str) -> object:
    """Open a socket in a blank page and close it; how it ended, as the page saw it."""
    await window.open("about:blank")
    await window.run(f"async () => {{ {PROBE} }}")
    seen = await window.run(VISIT, [url, []])
    assert isinstance(seen, list)
    return seen[-1]


@pytest.mark.parametrize("trusted", ["by nothing", "by the profile", "by the session"])
async def test_whose_certificates_it_takes(trusted: str) -> None:
    host = Host([("wss://myapp.test/*", 1)], security=Security(origins=["null"]))
    prepare = trusting(host.ca_pem) if trusted == "by the profile" else lambda profile: None
    session = INSECURE if trusted == "by the session" else {}
    async with host, firefox(host.firefox_prefs(), session, prepare) as window:
        end = await visit(window, "wss://myapp.test/")
    assert end == (["close", 1015, "", False] if trusted == "by nothing" else CLEAN)


@pytest.mark.parametrize("via", ["pac", "proxy"])
async def test_rules_that_change_while_it_runs(via: str) -> None:
    """A script that was read is not read again; a proxy decides by the rules of the moment."""
    host = Host([("ws://myapp.test/*", 1)], security=Security(origins=["null"]))
    async with host:
        prefs = host.firefox_prefs("proxy") if via == "proxy" else host.firefox_prefs()
        if via == "pac":
            prefs["network.proxy.autoconfig_url"] = host.pac_url
        async with firefox(prefs) as window:
            assert await visit(window, "ws://myapp.test/") == CLEAN
            host.intercepted_urls = [("ws://later.test/*", 1)]
            end = await visit(window, "ws://later.test/")
    assert end == (CLEAN if via == "proxy" else ["close", 1006, "", False])
