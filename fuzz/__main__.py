"""`python -m fuzz TARGET [libFuzzer arguments]`; see README.md."""

from __future__ import annotations

import sys
from pathlib import Path

import atheris
import structlog

with atheris.instrument_imports(include=["interceptor", "websockets"]):
    from fuzz.targets import TARGETS


def main() -> None:
    """Fuzz one target."""
    name, *arguments = sys.argv[1:] or ["-"]
    if name not in TARGETS:
        sys.exit(f"python -m fuzz {'|'.join(TARGETS)} [libFuzzer arguments]")
    corpus = Path(__file__).parent / "corpus" / name
    given = [argument for argument in arguments if not argument.startswith("-")]
    options = [argument for argument in arguments if argument.startswith("-")]
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))  # What fails is expected to.
    atheris.Setup([sys.argv[0], *options, *(given or [str(corpus)])], TARGETS[name])
    atheris.Fuzz()


main()
