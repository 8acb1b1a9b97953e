"""Which event loop a test runs on: asyncio's own, or each that the test's `asyncio` mark asks for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import pytest

LoopFactory = Callable[[], asyncio.AbstractEventLoop]

FACTORIES: dict[str, LoopFactory] = {"asyncio": asyncio.new_event_loop}
try:
    import uvloop
except ImportError:  # There is none for Windows.
    pass
else:
    FACTORIES["uvloop"] = uvloop.new_event_loop


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, LoopFactory]:
    """`pytest.mark.asyncio(loop_factories=("asyncio", "uvloop"))` runs a test on both."""
    mark = item.get_closest_marker("asyncio")
    if mark is not None and "loop_factories" in mark.kwargs:
        return FACTORIES
    return {"asyncio": asyncio.new_event_loop}
