"""The benchmarks run, in their smallest form; the figures mean nothing here, but that they check does."""

from __future__ import annotations

import asyncio
import importlib
import json
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosedError

from benchmarks.__main__ import main, missed
from benchmarks.aims import Aim, Verdict
from benchmarks.chart import draw
from benchmarks.deflate import NotAgreed, check_deflate
from benchmarks.footprint import ImportTime, add_up
from benchmarks.growth import Series
from benchmarks.load import BenchmarkError

from .peer import PATIENCE
from .started import started

ROOT = Path(__file__).parent.parent


def bench(name: str, folder: Path, *arguments: str) -> tuple[str, dict[str, Any]]:
    """Run a benchmark; return what it printed and its JSON."""
    file = folder / "found.json"
    command = [sys.executable, "-m", f"benchmarks.{name}", *arguments, "--json", str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(file.read_text())


def test_echo_measures_each_server(tmp_path: Path) -> None:
    arguments = ["--servers", "interceptor,websockets", "--only", "32:many", "1024:json"]
    printed, found = bench("echo", tmp_path, *arguments, "--rounds", "1", "--seconds", "0.05")
    assert [(row["cell"], row["server"]) for row in found["results"]] == [
        ("32:many", "interceptor"),
        ("32:many", "websockets"),
        ("1024:json", "interceptor"),
        ("1024:json", "websockets"),
    ]
    assert all(row["rate"] > 0 for row in found["results"])
    assert [aim["limit"] for aim in found["aims"]] == [2.0, 1.2]
    assert "1 KiB JSON" in printed


def test_broadcast_measures_plain_and_deflated(tmp_path: Path) -> None:
    printed, found = bench("broadcast", tmp_path, "--sockets", "5", "--count", "2", "--rounds", "1")
    assert [(row["cell"], row["server"]) for row in found["results"]] == [
        ("1024:plain", "interceptor"),
        ("1024:plain", "websockets"),
        ("1024:deflate", "interceptor"),
        ("1024:deflate", "websockets"),
    ]
    assert [aim["limit"] for aim in found["aims"]] == [1.0, 1.0]
    assert "to 5 sockets, deflate" in printed


def test_upgrades_measures_auto_and_manual(tmp_path: Path) -> None:
    _, found = bench("upgrades", tmp_path, "--at-once", "3", "--rounds", "1", "--seconds", "0.05")
    rows = [(row["cell"], row["server"]) for row in found["results"]]
    assert {("0:auto", "interceptor"), ("0:auto", "websockets")} < set(rows)
    assert rows[-2:] == [("0:manual", "interceptor"), ("0:manual", "websockets")]
    assert [aim["limit"] for aim in found["aims"]] == [1.0, 1.0]


def test_footprint_weighs_sockets_and_the_import(tmp_path: Path) -> None:
    printed, found = bench("footprint", tmp_path, "--sockets", "20", "--rounds", "1")
    assert found["sockets"] == 20
    assert {shape: list(row) for shape, row in found["memory_kib"].items()} == {
        "plain": ["interceptor", "websockets", "aiohttp"],
        "deflate": ["interceptor", "websockets", "aiohttp"],
    }
    times = found["import_ms"]
    assert 0 < times["modules"] < times["own"] < times["total"]
    assert [aim["limit"] for aim in found["aims"]] == [10, 40, 150]
    assert "ms of it our modules" in printed


def test_what_other_packages_import_is_not_counted_as_ours() -> None:
    rows = [
        (" site", 9, 9),
        ("     third", 3, 3),  # asked for by the other package, and so in its time
        ("   other.part", 4, 7),
        ("   asyncio", 5, 5),
        ("   ours.part", 6, 6),
        (" ours", 2, 20),
    ]
    assert add_up("ours", rows) == ImportTime(total=0.020, own=0.013, modules=0.008)


@pytest.mark.skipif(sys.platform != "linux", reason="needs the processor time of another process")
def test_growth_measures_each_series(tmp_path: Path) -> None:
    _, found = bench("growth", tmp_path, "--most", "100", "--rounds", "1", "--seconds", "0.02")
    assert [
        (line["name"], line["cost"], line["expected"], len(line["points"])) for line in found["series"]
    ] == [
        ("sockets", "a message", "flat", 2),
        ("rows", "an upgrade", "flat", 3),
        ("rows", "a look-up", "flat", 3),
        ("bytes", "a message", "linear", 6),
        ("handlers", "a message", "linear", 5),
    ]
    costs = [cost for line in found["series"] for _, cost in line["points"]]
    assert min(costs) > 0
    assert len(found["aims"]) == 5


def test_the_exponent_tells_flat_from_linear() -> None:
    assert Series("x", "y", "flat", [(1, 5.0), (10, 7.0), (100, 7.0), (1000, 7.0)]).exponent == pytest.approx(
        0
    )
    assert Series(
        "x", "y", "linear", [(1, 9.0), (10, 2.0), (100, 20.0), (1000, 200.0)]
    ).exponent == pytest.approx(1)


def test_all_writes_one_file_and_lists_the_aims(tmp_path: Path) -> None:
    pytest.importorskip("uvloop")
    arguments = ["--quick", "--parts", "threads", "--into", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "bench.json").read_text())
    assert {part: list(row) for part, row in found.items()} == {"threads": ["asyncio", "uvloop"]}
    assert "=== threads, uvloop" in done.stdout
    assert "aims missed:" in done.stdout or "all aims reached" in done.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot send Ctrl-C to one process")
def test_ctrl_c_ends_it_all_without_a_word_of_its_servers() -> None:
    arguments = ["--sockets", "20", "--count", "2", "--rounds", "100000"]
    with started(sys.executable, "-m", "benchmarks.broadcast", *arguments) as process:
        assert process.stderr is not None
        while "round 2/" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert [line for line in process.stderr if "round" not in line] == ["interrupted\n"]
        assert process.wait(PATIENCE) == 130


@pytest.mark.parametrize(
    "name", ["bounds", "broadcast", "echo", "footprint", "growth", "relay", "soak", "upgrades"]
)
def test_a_file_that_cannot_be_written_is_refused_before_anything_is_measured(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parse = importlib.import_module(f"benchmarks.{name}").parse
    file = tmp_path / "found.json"
    assert parse(["--json", str(file)]).json == file
    assert not file.exists()
    with pytest.raises(SystemExit):
        parse(["--json", str(tmp_path / "none" / "found.json")])
    assert "found.json cannot be written: No such file or directory" in capsys.readouterr().err


def test_a_folder_that_cannot_be_made_is_refused_before_anything_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit):
        main(["--into", str(tmp_path / "file" / "build")])
    assert "cannot be made a folder" in capsys.readouterr().err


def test_a_missed_aim_is_listed() -> None:
    aims = [
        Verdict("fast", 0.5, Aim(1.0)),
        Verdict("small", 0.5, Aim(1.0, most=True)),
        Verdict("x", None, Aim(1)),
    ]
    found = {"echo": {"asyncio": {"aims": [verdict.as_json() for verdict in aims]}}}
    assert missed(found) == ["echo, asyncio: fast: 0.5, aim 1"]


def test_charts_are_drawn_from_the_figures(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    names = {"sockets": "flat", "rows": "flat", "bytes": "linear", "handlers": "linear"}
    points = [(1, 1.0), (10, 10.0), (100, 100.0)]
    series = [Series(name, "a message", expected, points).as_json() for name, expected in names.items()]
    row = {
        "cell": "32:one",
        "size": 32,
        "shape": "one",
        "sockets": 1,
        "window": 1,
        "server": "aiohttp",
        "ratio": 1.25,
    }
    found = {"echo": {"asyncio": {"results": [row]}}, "growth": {"asyncio": {"series": series}}}
    assert [file.name for file in draw(found, tmp_path)] == ["speed.svg", "growth.svg"]
    speed, growth = ((tmp_path / name).read_text() for name in ("speed.svg", "growth.svg"))
    assert ">1.25<" in speed
    assert "one in flight" in speed
    assert "More open sockets" in growth
    assert "flat, as it should be" in growth


async def check_against(answer: str | None, **options: Any) -> tuple[float, bool]:
    """What `check_deflate` says of a server that echoes, or sends the same answer again and again."""

    async def talk(websocket: ServerConnection) -> None:
        with suppress(ConnectionClosedError):
            async for message in websocket:
                await websocket.send(message if answer is None else answer)

    async with serve(talk, "127.0.0.1", 0, **options) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        return await asyncio.to_thread(check_deflate, port)


async def test_compressed_echoes_are_inflated() -> None:
    size, compresses = await check_against(None)
    assert compresses
    assert size < 400


async def test_a_wrong_compressed_echo_is_found() -> None:
    with pytest.raises(BenchmarkError, match="message 0 came back changed"):
        await check_against("wrong")


async def test_a_server_that_does_not_agree_to_deflate_is_named() -> None:
    with pytest.raises(NotAgreed):
        await check_against(None, compression=None)
