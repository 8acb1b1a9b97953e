"""The examples with a window, each as it stands, in a real one on a screen that nobody sees.

With `SHOTS=folder` in the environment they leave pictures there, to be looked at.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import NamedTuple, cast

import pytest

from .browser import flags, require_chromium
from .devtools import FLAGS, Devtools, free_port
from .engines import missing, started
from .engines.windows import OFFSCREEN, require_qt, screen
from .peer import PATIENCE
from .test_examples import running

EXAMPLES = Path(__file__).parent.parent / "examples"


def qt_environ() -> dict[str, str]:
    return {
        **OFFSCREEN,
        "QTWEBENGINE_CHROMIUM_FLAGS": "--no-sandbox --disable-gpu",
        "QTWEBENGINE_REMOTE_DEBUGGING": free_port(),
    }


pytestmark = [pytest.mark.engine, pytest.mark.timeout(120)]


class Program(NamedTuple):
    """An example that runs."""

    process: asyncio.subprocess.Process
    log: Path

    async def tell(self, **order: str) -> None:
        """Give an order to its driver."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(order).encode() + b"\n")
        await self.process.stdin.drain()

    async def give_up(self, driven: bool) -> None:
        """Have it end by itself, and so end the browser that it has started; that would keep its pipes."""
        if self.process.returncode is None:
            with suppress(OSError):
                await self.tell(quit="now") if driven else self.process.send_signal(signal.SIGINT)
            with suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE):
                    await self.process.wait()

    async def ends(self) -> None:
        """Wait for the end, which must be in order."""
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            said = await self.process.stdout.read()
            assert await self.process.wait() == 0, self.log.read_text()
        assert said.decode().strip().endswith("stopped")
        assert "Traceback" not in self.log.read_text()


@asynccontextmanager
async def example(
    tmp_path: Path, name: str, *args: str, env: Mapping[str, str], driven: bool = True
) -> AsyncIterator[Program]:
    """Run an example."""
    command = ["-m", "tests.window_driver"] if driven else []
    log = tmp_path / "log"
    log.touch()
    home = dict.fromkeys(("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"), str(tmp_path))
    env = {**home, **env, "PYTHONPATH": str(EXAMPLES.parent)}
    async with started(
        sys.executable, *command, str(EXAMPLES / name), *args, env=env, log=str(log)
    ) as process:
        program = Program(process, log)
        try:
            yield program
        finally:
            await program.give_up(driven)


async def shots(page: Devtools, name: str) -> None:
    """Keep pictures if they are wanted."""
    if folder := os.environ.get("SHOTS"):
        for scheme in ("dark", "light"):
            await page.shoot(Path(folder, f"{name}-{scheme}.png"), scheme)


FILL = """text => {
    const input = document.querySelector("input[type=text], input[name]");
    input.value = text;
    input.form.requestSubmit();
}"""


FITS = """() => {
    const list = document.querySelector("#list"), boxes = [...list.querySelectorAll("input")];
    return [list.scrollWidth <= list.clientWidth, new Set(boxes.map(box => box.offsetWidth)).size];
}"""

SIZES = (
    """() => ["h1", "h2"].map(name => parseFloat(getComputedStyle(document.querySelector(name)).fontSize))"""
)


async def test_pywebview(tmp_path: Path) -> None:
    require_qt()
    pytest.importorskip("webview", reason="no pywebview")
    env = {**qt_environ(), "PYWEBVIEW_GUI": "qt", "QT_API": "pyside6"}
    async with (
        example(tmp_path, "pywebview_app.py", env=env) as program,
        Devtools.find(program.log, "/tasks.html") as page,
    ):
        await page.text("2 of 2 left")
        await page.run(FILL, "Water <b>the</b> plants")
        await page.text("3 of 3 left")
        await page.text("Water <b>the</b> plants")  # What is typed is text, never HTML.
        await page.run("() => document.querySelector('#list input').click()")
        await page.text("2 of 3 left")
        assert await page.run("() => document.querySelectorAll('.done').length") == 1
        await page.run(FILL, "A" * 150)
        await page.text("3 of 4 left")
        assert await page.run(FITS) == [True, 1]
        await shots(page, "pywebview")
        assert await page.log() == []  # Such as a style of pywebview's own that the page's policy refuses.
        await program.tell(quit="now")
        await program.ends()


async def test_qt(tmp_path: Path) -> None:
    require_qt()
    async with (
        example(tmp_path, "qt_app.py", env=qt_environ()) as program,
        Devtools.find(program.log, "/progress.html") as page,
    ):
        await page.text("connected")
        await page.run(
            "() => { const input = document.querySelector('#value'); input.value = 62;"
            "input.dispatchEvent(new Event('input')); }"
        )
        # The bar is asked until it has moved, by the button that tells the page of it.
        while "62 %" not in str(await page.run("() => document.querySelector('#said').innerText")):
            await program.tell(press="Greet the page")
            await page.text("Hello")
        await shots(page, "qt-page")
        if folder := os.environ.get("SHOTS"):
            await program.tell(shoot=str(Path(folder, "qt.png")))
            await page.run("() => new Promise(resolve => setTimeout(resolve, 300))")
        await program.tell(quit="now")
        await program.ends()


async def test_tk(tmp_path: Path) -> None:
    pytest.importorskip("tkinter", reason="no Tk")
    chromium = require_chromium()
    if shutil.which("Xvfb") is None:
        missing("xvfb", "Xvfb is not on PATH", excused=True)
    async with screen() as display:
        (tmp_path / "chromium").symlink_to(chromium)
        env = {"DISPLAY": display, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
        args = (*flags(), *FLAGS, "--no-sandbox")
        async with (
            example(tmp_path, "tk_app.py", *args, env=env) as program,
            Devtools.find(program.log, "/gate.html") as page,
        ):
            for button, said in (("Deny", "Not today."), ("Allow", "The gatekeeper says hello.")):
                await page.until("() => document.querySelector('#ask')?.disabled === false")
                await page.run("() => document.querySelector('#ask').click()")
                await page.text("asking")
                if button == "Allow":
                    await picture(display, "tk")
                await program.tell(press=button)  # As soon as there is one.
                await page.text(said)
            await shots(page, "tk-page")
            await program.tell(quit="now")
            await program.ends()


async def test_qt_ends_by_ctrl_c(tmp_path: Path) -> None:
    require_qt()
    async with (
        example(tmp_path, "qt_app.py", env=qt_environ(), driven=False) as program,
        Devtools.find(program.log, "/progress.html") as page,
    ):
        await page.text("connected")
        program.process.send_signal(signal.SIGINT)
        await program.ends()


@pytest.mark.parametrize("way", ["Ctrl-C", "the browser's window"])
async def test_tk_ends_by(tmp_path: Path, way: str) -> None:
    pytest.importorskip("tkinter", reason="no Tk")
    chromium = require_chromium()
    if shutil.which("Xvfb") is None:
        missing("xvfb", "Xvfb is not on PATH", excused=True)
    async with screen() as display:
        (tmp_path / "chromium").symlink_to(chromium)
        env = {"DISPLAY": display, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
        args = (*flags(), *FLAGS, "--no-sandbox")
        async with example(tmp_path, "tk_app.py", *args, env=env, driven=False) as program:
            async with Devtools.find(program.log, "/gate.html") as page:
                await page.until("() => document.querySelector('#ask')?.disabled === false")
                if way == "Ctrl-C":
                    program.process.send_signal(signal.SIGINT)
                else:
                    await page.ask("Browser.close")
            await program.ends()


async def picture(display: str, name: str) -> None:
    """Keep a picture of a screen if it is wanted, and Pillow is there."""
    if folder := os.environ.get("SHOTS"):
        file = str(Path(folder, f"{name}.png"))
        code = f"from PIL import ImageGrab; ImageGrab.grab(xdisplay={display!r}).save({file!r})"
        await asyncio.sleep(1)
        await (await asyncio.create_subprocess_exec(sys.executable, "-c", code)).wait()


async def test_html_renderer(tmp_path: Path) -> None:
    (tmp_path / "chromium").symlink_to(require_chromium())
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    args = ("--headless", *flags(), *FLAGS, "--no-sandbox")
    async with (
        example(tmp_path, "html_renderer.py", *args, env=env, driven=False) as program,
        Devtools.find(program.log, "dyalog_root") as page,
    ):
        await page.text("Good day, whoever you are")
        first, second = cast(list[float], await page.run(SIZES))
        assert first > second
        await page.text("you said: hello from the page\nthat is all\nclosed 1000 thanks")
        await page.run(FILL, "<Ann>")
        await page.text("Good day, <Ann>")
        await page.text("closed 1000 thanks")
        await shots(page, "html_renderer")
        assert program.process.stdout is not None
        lines = [(await program.process.stdout.readline()).decode().strip() for _ in range(3)]
        assert lines == ["841 ws://dyalog_root/chat", "842 hello from the page", "843 1000 thanks"]


async def test_asyncio(tmp_path: Path) -> None:
    from .browser import launched

    async with running("asyncio_app.py") as [url], launched() as browser:
        page = await browser.new_page()
        await page.goto(url)
        await page.wait_for_function(
            "() => /^\\d\\d:\\d\\d:\\d\\d$/.test(document.querySelector('#now').textContent)"
        )
        if folder := os.environ.get("SHOTS"):
            await page.screenshot(path=Path(folder, "asyncio.png"))
        await browser.close()
