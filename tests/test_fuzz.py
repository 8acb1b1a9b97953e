"""The targets of fuzzing hold for each input of their corpora; all but the last test without atheris."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fuzz.targets import TARGETS

ROOT = Path(__file__).parent.parent
CORPUS = ROOT / "fuzz" / "corpus"
INPUTS = sorted(path.relative_to(CORPUS).as_posix() for path in CORPUS.glob("*/*"))


def test_each_target_has_a_corpus() -> None:
    assert {name.partition("/")[0] for name in INPUTS} == set(TARGETS)
    assert len(INPUTS) > 30


@pytest.mark.parametrize("name", INPUTS)
def test_an_input(name: str) -> None:
    TARGETS[name.partition("/")[0]]((CORPUS / name).read_bytes())


def test_without_atheris_it_says_what_to_install() -> None:
    code = "import runpy, sys; sys.modules['atheris'] = None; runpy.run_module('fuzz', run_name='__main__')"
    command = [sys.executable, "-c", code, "frames"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "fuzzing needs atheris" in done.stderr
    assert "Traceback" not in done.stderr


def test_fuzzing_leaves_the_corpus_as_it_is() -> None:
    """New inputs, of which there are some in the first hundred, go to build/."""
    pytest.importorskip("atheris", reason="atheris is for fuzzing only")
    before = {path: path.read_bytes() for path in CORPUS.rglob("*") if path.is_file()}
    found = ROOT / "build" / "fuzz" / "frames"
    command = [sys.executable, "-m", "fuzz", "frames", "-runs=500", "-seed=1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert f"new inputs go to {found}" in done.stderr
    assert any(found.iterdir())
    assert {path: path.read_bytes() for path in CORPUS.rglob("*") if path.is_file()} == before
