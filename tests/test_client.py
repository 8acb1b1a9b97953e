"""The package interceptor.client: what it shows, and that nobody pays for it who does not use it."""

from __future__ import annotations

import subprocess
import sys

from interceptor import DOMException, client


def test_all_names_are_there() -> None:
    assert sorted(client.__all__) == client.__all__
    assert all(hasattr(client, name) for name in client.__all__)
    assert client.DOMException is DOMException


def test_the_host_does_without_it() -> None:
    script = "import interceptor, sys; sys.exit(bool({'interceptor.client', 'ada_url'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
