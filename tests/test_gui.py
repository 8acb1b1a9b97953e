"""Callbacks on the thread of a real GUI: Qt, Tk, GLib and wx, each in a process of its own.

What every one of them is put through is in tests/toolkits/conversation.py.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SYSTEM_PYTHON = "/usr/bin/python3"
SYSTEM_PACKAGES = Path(sys.prefix) / "system"
PATIENCE = 50.0
OFFSCREEN = {"QT_QPA_PLATFORM": "offscreen"}


@pytest.fixture(scope="module")
def display() -> Iterator[dict[str, str]]:
    """A screen that nobody sees."""
    if sys.platform in ("win32", "darwin"):
        yield {}
        return
    if shutil.which("Xvfb") is None:
        pytest.skip("there is no Xvfb; Debian has it in xvfb")
    reading, writing = os.pipe()
    command = [
        "Xvfb",
        "-displayfd",
        str(writing),
        "-screen",
        "0",
        "800x600x24",
        "-noreset",
        "-nolisten",
        "tcp",
    ]
    server = subprocess.Popen(command, pass_fds=[writing], stderr=subprocess.DEVNULL)
    os.close(writing)
    try:
        with os.fdopen(reading) as numbers:
            yield {"DISPLAY": f":{numbers.readline().strip()}"}
    finally:
        server.terminate()
        server.wait()


def can(python: str, statement: str, environment: dict[str, str]) -> str:
    """Why a Python cannot do what it is to do; empty if it can."""
    if shutil.which(python) is None:
        return f"there is no {python}"
    command = [python, "-c", f"import sys; assert sys.version_info >= (3, 11), sys.version; {statement}"]
    tried = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    return tried.stderr.strip().rpartition("\n")[2] if tried.returncode else ""


FAULT_OF_A_BINDING = "bug likely caused by a refcount error in a C extension"
"""Seldom, PySide6 ends so once the interpreter has ended: after all that is ours."""


def converse(module: str, needs: str, *arguments: str, python: str = sys.executable, **extra: str) -> None:
    """Run a program of tests/toolkits; skip where its toolkit is not there."""
    path = [str(ROOT)] if python == sys.executable else [str(ROOT), str(SYSTEM_PACKAGES)]
    environment = {**os.environ, **extra, "PYTHONPATH": os.pathsep.join(path), "PYTHONDEVMODE": "1"}
    if why := can(python, needs, environment):
        pytest.skip(f"{module} cannot be tried: {why}; scripts/toolkits installs it")
    command = [python, "-m", f"tests.toolkits.{module}", *arguments]
    for _ in range(2):
        ran = subprocess.run(
            command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        if FAULT_OF_A_BINDING not in ran.stderr or not ran.stdout.startswith("ok "):
            break
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("ok "), ran.stdout
    for trouble in ("ResourceWarning", "was destroyed", "never awaited", "Exception ignored"):
        assert trouble not in ran.stderr, ran.stderr
    if module == "qt_asyncio":
        return
    # Said once by the log, with the reason, where `post` can tell that the GUI is gone.
    assert ran.stderr.count("post raised, so") == (0 if module == "glib" else 1), ran.stderr


@pytest.mark.parametrize("binding", ["PySide6", "PyQt6"])
def test_qt(binding: str) -> None:
    converse("qt", f"import {binding}.QtWidgets", binding, **OFFSCREEN)


def test_qasync() -> None:
    converse("qt_asyncio", "import PySide6.QtWidgets, qasync", QT_API="pyside6", **OFFSCREEN)


@pytest.mark.parametrize("way", ["wait", "poll"])
def test_tk(display: dict[str, str], way: str) -> None:
    converse("tk", "import tkinter; tkinter.Tk()", way, **display)


def test_glib() -> None:
    converse("glib", "import websockets; from gi.repository import GLib", python=SYSTEM_PYTHON)


def test_wx(display: dict[str, str]) -> None:
    converse("wx", "import websockets, wx", python=SYSTEM_PYTHON, **display)


QT_MISUSE = """
from interceptor import InvalidState
from interceptor.gui import qt
try:
    qt.post(print)
except InvalidState as exc:
    print(exc)
app = qt.QtCore.QCoreApplication([])
seen = []
qt.post(lambda: (seen.append(1), qt.post(app.quit)))
app.exec()
try:
    qt.post(print)
except InvalidState as exc:
    print(exc)
# A program may run its application once more.
qt.QtCore.QTimer.singleShot(100, lambda: qt.post(app.quit))
app.exec()
print(seen)
"""


@pytest.mark.parametrize("binding", ["PySide6", "PyQt6"])
def test_qt_without_an_application_and_after_it(binding: str) -> None:
    if why := can(sys.executable, f"import {binding}.QtCore", dict(os.environ)):
        pytest.skip(f"{binding} cannot be tried: {why}; scripts/toolkits installs it")
    command = [sys.executable, "-c", f"import {binding}.QtCore\n{QT_MISUSE}"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines() == [
        "there is no QApplication; make it before pages connect",
        "the QApplication has quit",
        "[1]",
    ]


def test_no_toolkit_is_imported_before_it_is_used() -> None:
    code = (
        "import sys, interceptor, interceptor.gui\n"
        "print({'PySide6', 'PyQt6', 'tkinter', 'gi', 'wx'} & sys.modules.keys())"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "set()"


def test_without_qt_the_message_tells_what_to_install() -> None:
    code = (
        "import sys\nsys.modules['PySide6'] = sys.modules['PyQt6'] = None\n"
        "try:\n    import interceptor.gui.qt\nexcept ModuleNotFoundError as exc:\n    print(exc)"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "pip install PySide6" in ran.stdout
