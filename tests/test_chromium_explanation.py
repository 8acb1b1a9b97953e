"""What `explain` says of Chromium is what a page in a real one sees, for every answer of the table."""

from __future__ import annotations

import pytest

from interceptor import Host, Mode
from interceptor.client import explain

from .answers import CASES
from .pages import FAILED, Tab, url_of
from .pages import chromium as chromium
from .pages import tab as tab

pytestmark = [pytest.mark.chromium, pytest.mark.asyncio(loop_scope="module")]


@pytest.mark.parametrize("name", CASES)
async def test_chromium_does_what_is_said(tab: Tab, name: str) -> None:
    case = CASES[name]
    host = Host([("*", Mode.MANUAL)], security=tab.site.trusted)
    host.on("WebSocketUpgrade")(lambda event: event.verbatim(case.reply(event)))
    async with host:
        seen = await tab.visit(url_of(host), list(case.asked))
        explanation = await explain(url_of(host), case.asked, origin=tab.site.origin)
    assert (seen[0][0] == "open") is explanation.chromium.opens
    if not explanation.chromium.opens:
        assert seen == FAILED
