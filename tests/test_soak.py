"""The soak, for some seconds: it ends well with a right host, and says what is wrong with any other."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import memory, soak
from benchmarks.soak_lives import ENDS, KINDS, Ledger, Life, draw, verdict

ROOT = Path(__file__).resolve().parent.parent

LOOPS = [
    "asyncio",
    pytest.param("uvloop", marks=pytest.mark.skipif(sys.platform == "win32", reason="no uvloop")),
]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.soak", "--seed", "1", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=50, check=False)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_right_host_passes(loop: str, tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    done = run("--minutes", "0.04", "--sockets", "20", "--loop", loop, "--json", str(figures))
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(figures.read_text())
    assert found["broken"] == []
    assert found["totals"]["lives"]["all"] >= 20
    assert 0 < found["totals"]["heard"] <= found["totals"]["sent"]
    assert found["after"]["Session"] == found["left"]["after"]["transports"] == 0


@pytest.mark.parametrize("loop", LOOPS)
def test_many_at_once(loop: str, tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    done = run("--open", "--sockets", "300", "--talking", "30", "--loop", loop, "--json", str(figures))
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(figures.read_text())
    assert found["holding"]["Session"] == 300
    assert found["sent"] == found["heard"] == found["received"] == 600


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("leak", "after the run there is more"),
        ("lose", "message back is not"),
        ("repeat", "message back is not"),
    ],
)
def test_a_broken_promise_is_found(fault: str, said: str) -> None:
    done = run("--minutes", "0.04", "--sockets", "20", "--plant", fault, "--patience", "2")
    assert done.returncode == 1, done.stdout + done.stderr
    assert said in done.stdout


LIFE = Life("auto", "close", 1, slow=False, proxied=False, deflate=False)
RIGHT = {"heard": 3, "sent": 3, "wrong": "", "code": 1000, "initiator": "client"}


def ledger(received: int = 3) -> Ledger:
    found = Ledger()
    for _ in range(3):
        found.make(random.Random(1), 10)
    for message in list(found.due)[:received]:
        found.receive(message)
    return found


@pytest.mark.parametrize(
    ("life", "received", "report", "wrong"),
    [
        ({}, 3, {}, ""),
        ({}, 3, {"heard": 2}, "2 of 3 messages were heard"),
        ({}, 3, {"heard": 4}, "more came than was sent"),
        ({}, 2, {}, "2 of 3 messages came back"),
        ({}, 3, {"wrong": "'5' came where 2 was next"}, "'5' came"),
        ({}, 3, {"code": 1006}, "ended with 1006"),
        ({"end": "leave"}, 1, {}, ""),
        ({"end": "reset"}, 1, {"heard": 2, "sent": 2, "code": 1006, "initiator": "fault"}, ""),
        ({"end": "vanish"}, 1, {"heard": 2, "sent": 2, "code": 1006, "initiator": "fault"}, "2 of 3"),
        ({"end": "bye"}, 3, {"code": 3000, "initiator": "host"}, ""),
        ({"end": "bye"}, 2, {"code": 3000, "initiator": "host"}, "2 of 3 messages came back"),
    ],
)
def test_the_accounts_are_compared(
    life: dict[str, str], received: int, report: dict[str, object], wrong: str
) -> None:
    said = verdict(Life(**{**vars(LIFE), **life}), ledger(received), {**RIGHT, **report})
    assert said.startswith(wrong) if not wrong.startswith("'") else wrong in said
    assert bool(said) is bool(wrong)


def test_what_comes_back_is_compared_to_the_last_character() -> None:
    found = ledger(0)
    first, second, _ = found.due
    found.receive(second)
    assert found.wrong
    found = ledger(0)
    found.receive(first[:-1])
    assert found.wrong


def test_every_life_is_drawn() -> None:
    lives = [draw(random.Random(seed)) for seed in range(2000)]
    assert {life.kind for life in lives} == set(KINDS)
    assert {life.end for life in lives} == {*ENDS, "quit"}
    assert any(life.slow for life in lives)
    assert any(life.proxied and life.deflate for life in lives)


@pytest.mark.parametrize(("end", "wrong"), [(104, ""), (107, "100.0 to 107.0 MiB"), (93, "")])
def test_memory_is_judged(end: int, wrong: str) -> None:
    samples = [(float(second), (100 if second < 200 else end) * soak.MIB, 1) for second in range(300)]
    figures, said = soak.judge_memory(samples)
    assert figures["ratio"] == pytest.approx(end / 100)
    assert wrong in said
    assert bool(said) is bool(wrong)


def test_a_short_run_says_nothing_of_memory() -> None:
    assert soak.judge_memory([(float(second), second * soak.MIB, 1) for second in range(1, 100)]) == ({}, "")


def test_what_is_left_is_named() -> None:
    assert soak.left_over("then", {"Session": 1, "tasks": 2}, {"Session": 3, "tasks": 2}) == [
        "then there is more: 2 Session"
    ]


def test_too_few_files_are_said_before_anything_is_opened(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "allow_files", lambda count: 1024)
    assert soak.main(["--open"]) == 1
    failed = "failed: 10,100 open files are needed and the system allows 1,024: raise its limit (ulimit -Hn)"
    assert failed in capsys.readouterr().err


@pytest.mark.parametrize("text", [None, "no JSON", "[]", "{}"])
def test_a_chart_of_another_file(
    text: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    source, target = tmp_path / "figures.json", tmp_path / "chart.svg"
    if text is not None:
        source.write_text(text)
    assert soak.main(["--draw", str(source), "--svg", str(target)]) == 1
    assert f"failed: {source} is no file that --json wrote of a soak" in capsys.readouterr().err
    assert not target.exists()


def test_the_chart_has_a_line_for_each_loop(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for loop in ("asyncio", "uvloop"):
        samples = [(second, 50 * soak.MIB, 200) for second in range(200)]
        (tmp_path / loop).write_text(json.dumps({"loop": loop, "samples": samples}))
    target = tmp_path / "chart.svg"
    files = [str(tmp_path / loop) for loop in ("asyncio", "uvloop")]
    assert soak.main(["--draw", *files, "--svg", str(target)]) == 0
    text = target.read_text()
    assert ">asyncio<" in text
    assert ">uvloop<" in text
    assert "currentColor" in text
    assert "prefers-color-scheme: dark" in text
