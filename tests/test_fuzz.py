"""The targets of fuzzing hold for each input of their corpora; without atheris."""

from __future__ import annotations

from pathlib import Path

import pytest

from fuzz.targets import TARGETS

CORPUS = Path(__file__).parent.parent / "fuzz" / "corpus"
INPUTS = sorted(path.relative_to(CORPUS).as_posix() for path in CORPUS.glob("*/*"))


def test_each_target_has_a_corpus() -> None:
    assert {name.partition("/")[0] for name in INPUTS} == set(TARGETS)
    assert len(INPUTS) > 30


@pytest.mark.parametrize("name", INPUTS)
def test_an_input(name: str) -> None:
    TARGETS[name.partition("/")[0]]((CORPUS / name).read_bytes())
