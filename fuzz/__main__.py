"""`python -m fuzz TARGET [libFuzzer arguments]`; see README.md."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import structlog

try:
    import atheris

    with atheris.instrument_imports(include=["interceptor", "websockets"]):
        from fuzz.targets import TARGETS
except ModuleNotFoundError as exc:
    sys.exit(
        f"{exc}; fuzzing needs atheris (Linux and macOS) and what the tests need: "
        'pip install -e ".[test]" atheris\n'
        "without atheris, python -m pytest tests/test_fuzz.py tries every input of the corpus"
    )

HERE = Path(__file__).resolve().parent
FOUND = HERE.parent / "build" / "fuzz"


def fuzzer_arguments(name: str, arguments: Sequence[str]) -> list[str]:
    """What libFuzzer is told: it writes to the first directory, and only reads the others."""
    found = [f"-artifact_prefix={FOUND / name}-", *arguments]
    (FOUND / name).mkdir(parents=True, exist_ok=True)
    if all(argument.startswith("-") for argument in arguments):
        found += [str(FOUND / name), str(HERE / "corpus" / name)]
        print(f"new inputs go to {FOUND / name}, what fails to {FOUND / name}-crash-...", file=sys.stderr)
    return found


def main() -> None:
    """Fuzz one target."""
    name, *arguments = sys.argv[1:] or ["-"]
    if name not in TARGETS:
        sys.exit(f"python -m fuzz {'|'.join(TARGETS)} [libFuzzer arguments]")
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))  # What fails is expected to.
    atheris.Setup([sys.argv[0], *fuzzer_arguments(name, arguments)], TARGETS[name])
    atheris.Fuzz()


main()
