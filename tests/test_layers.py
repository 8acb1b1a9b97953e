"""Imports point down, and each outside library has its door. The source is read, never run."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from importlib.util import resolve_name
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "interceptor"

# Bottom first. A subpackage stands for all that is in it; __init__ is what a program imports.
LAYERS = (
    ("exceptions", "log", "clock", "state"),
    ("config", "patterns", "urls", "heads", "binary", "events", "payload", "gui", "upstream"),
    ("handshake", "messages"),
    ("frames", "stream", "dispatch"),
    ("backlog", "ending", "linger"),
    ("connection",),
    ("answering", "callbacks", "inbox", "outgoing", "session", "relay", "client", "threaded"),
    ("ways", "sessions"),
    ("doctor",),
    ("host",),
    ("__init__",),
    ("record", "inspector", "pytest_plugin", "demo"),
    ("cli", "__main__"),
)
RANKS = {module: rank for rank, layer in enumerate(LAYERS) for module in layer}
DOORS = {
    "websockets": ("handshake", "messages", "frames", "connection"),
    "threading": ("dispatch",),
    "queue": ("dispatch",),
    "structlog": ("log",),
}
SHUT = ("websockets.asyncio", "websockets.legacy", "websockets.sync", "websockets.trio")


def faults(package: Path) -> list[str]:
    """What is wrong with the imports of a package, one line each."""
    files = {module_name(path.relative_to(package)): path for path in package.rglob("*.py")}
    if strange := [module for module in files if head(module) not in RANKS]:
        return [f"{module} has no layer: add it to LAYERS in tests/test_layers.py" for module in strange]
    graph: dict[str, set[str]] = {module: set() for module in files}
    found = []
    for module, path in files.items():
        for name in imports(path, package):
            if head(name) != package.name:
                found += at_the_door(module, name)
            elif (target := own_module(name, {*files, *RANKS})) != module:
                graph[module].add(target)
                found += upwards(module, target)
    return found + rings(graph)


def module_name(path: Path) -> str:
    """`ways/proxy.py` is ways.proxy, `ways/__init__.py` is ways, the package's own is __init__."""
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def head(name: str) -> str:
    return name.partition(".")[0]


def imports(path: Path, package: Path) -> Iterator[str]:
    """All that a file imports, wherever in it, as full dotted names down to the thing imported."""
    parent = ".".join(path.parent.relative_to(package.parent).parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = resolve_name("." * node.level + (node.module or ""), parent)
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def own_module(name: str, modules: set[str]) -> str:
    """The module that holds a name of the package: `interceptor.host.Host` is in host."""
    parts = name.split(".")[1:]
    starts = (".".join(parts[:end]) for end in range(len(parts), 0, -1))
    return next((start for start in starts if start in modules), "__init__")


def upwards(module: str, target: str) -> list[str]:
    up = RANKS[head(target)] > RANKS[head(module)]
    return [f"{module} imports {target}, which is above it"] if up else []


def at_the_door(module: str, name: str) -> list[str]:
    if f"{name}.".startswith(tuple(f"{shut}." for shut in SHUT)):
        return [f"{module} imports {name}: of websockets only the sans-I/O core is ours to use"]
    doors = DOORS.get(head(name), (head(module),))
    return [] if head(module) in doors else [f"{module} imports {name}: only {', '.join(doors)} may"]


def rings(graph: dict[str, set[str]]) -> list[str]:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as exc:
        return ["a ring of imports: " + " <- ".join(exc.args[1])]
    return []


def test_imports_point_down_and_keep_to_the_doors() -> None:
    assert (PACKAGE / "exceptions.py").exists(), "nothing was read"
    found = faults(PACKAGE)
    assert not found, "\n".join(["", *found])


RIGHT = {
    "__init__": "from interceptor.host import Host",
    "urls": "import interceptor.patterns",
    "events": "from interceptor import exceptions",
    "connection": "from websockets.frames import Frame\nfrom .messages import Message",
    "dispatch": "import queue, threading",
    "log": "import structlog",
    "ways/__init__": "from interceptor.ways.certs import leaf",
    "ways/certs": "from . import pages\nfrom ..connection import Connection",
    "ways/pages": "",
    "cli": "from interceptor import Host, demo",
}


@pytest.mark.parametrize(
    ("module", "source", "fault"),
    [
        ("events", "from interceptor.session import Session", "events imports session, which is above it"),
        ("events", "from .session import Session", "events imports session, which is above it"),
        ("events", "from interceptor import Host", "events imports __init__, which is above it"),
        ("events", "def late():\n    import interceptor.host", "events imports host, which is above it"),
        ("events", "if TYPE_CHECKING:\n    from . import host", "events imports host, which is above it"),
        ("ways/pages", "from ..host import Host", "ways.pages imports host, which is above it"),
        ("__init__", "from .cli import main", "__init__ imports cli, which is above it"),
        ("patterns", "from interceptor import urls", "a ring of imports: "),
        ("ways/pages", "from . import certs", "a ring of imports: "),
        ("gossip", "", "gossip has no layer: add it to LAYERS in tests/test_layers.py"),
        (
            "session",
            "import websockets",
            "session imports websockets: only handshake, messages, frames, connection",
        ),
        (
            "connection",
            "from websockets import asyncio",
            "connection imports websockets.asyncio: of websockets",
        ),
        ("connection", "import websockets.sync.server", "connection imports websockets.sync.server: of"),
        ("host", "from queue import Queue", "host imports queue.Queue: only dispatch may"),
        ("demo", "import threading", "demo imports threading: only dispatch may"),
        ("ways/pages", "import structlog.stdlib", "ways.pages imports structlog.stdlib: only log may"),
    ],
)
def test_a_planted_fault_is_found(tmp_path: Path, module: str, source: str, fault: str) -> None:
    package = tmp_path / "interceptor"
    (package / "ways").mkdir(parents=True)
    for name, text in RIGHT.items():
        (package / f"{name}.py").write_text(text, encoding="utf-8")
    assert faults(package) == []
    (package / f"{module}.py").write_text(source, encoding="utf-8")
    assert any(line.startswith(fault) for line in faults(package))
