"""The files of `Host(ui=...)`. Which file is meant is decided here, how it is sent by Werkzeug."""

from __future__ import annotations

import errno
import hashlib
import io
import mimetypes
import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import IO, TYPE_CHECKING, BinaryIO, cast
from urllib.parse import unquote_to_bytes

from .. import log
from ..exceptions import HandshakeFailure, InvalidArgument, InvalidState, UnsupportedType
from ..handshake import Request
from ..patterns import URL
from .visit import Response

if TYPE_CHECKING:
    from werkzeug.wrappers import Response as Sent

__all__ = ["Files", "Fit"]

Fit = Callable[[bytes], bytes]
"""Changes a page before it is sent."""

INDEX = "index.html"
PIECE = 64 * 1024
LONGEST_NAME = 255

READ = os.O_RDONLY
for _name in ("O_BINARY", "O_CLOEXEC", "O_NOFOLLOW", "O_NOINHERIT", "O_NONBLOCK"):  # A pipe does not wait.
    READ |= getattr(os, _name, 0)
FOLDER = READ | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_PATH", 0)

DEVICE = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³])\s*([.:].*)?", re.IGNORECASE)
"""Names that mean a device to Windows, in every folder and with any ending."""

FOREIGN = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|]')
"""Characters that part or cut a name on one system or another."""

ONE_RANGE = re.compile(r"\s*bytes\s*=\s*([0-9]+-[0-9]*|-[0-9]+)\s*")
"""The ranges that are served; others are ignored, which RFC 9110 section 14.2 allows."""

TYPES = {
    ".avif": "image/avif",
    ".js": "text/javascript",
    ".map": "application/json",
    ".md": "text/markdown",
    ".mjs": "text/javascript",
    ".otf": "font/otf",
    ".ttf": "font/ttf",
    ".webmanifest": "application/manifest+json",
    ".webp": "image/webp",
    ".woff": "font/woff",
    ".woff2": "font/woff2",
}
"""What Python's own table has not, or not in all versions. What the system says is not asked."""

DATED = ("if-modified-since", "if-unmodified-since", "if-range")

KEPT = ("Content-Type", "Content-Range", "Accept-Ranges", "ETag", "Last-Modified")


class Files:
    """The files of a folder, for pages.

    Args:
        folder: where they are.
        csp: Content-Security-Policy of pages; None sends none.

    Raises:
        InvalidArgument: it is no folder.
        InvalidState: Werkzeug is not installed.
    """

    def __init__(self, folder: str | os.PathLike[str], csp: str | None) -> None:
        if not isinstance(folder, str | os.PathLike):
            raise UnsupportedType(f"ui is {folder!r}; it is the path of a folder")
        try:
            self._root = Path(folder).resolve(strict=True)
        except OSError as exc:
            raise InvalidArgument(f"ui names {os.fspath(folder)!r}, which is not there") from exc
        if not self._root.is_dir():
            raise InvalidArgument(f"ui names {os.fspath(folder)!r}, which is no folder")
        try:
            import werkzeug.utils  # noqa: F401  # only programs with files need it
        except ImportError as exc:
            raise InvalidState("ui= needs Werkzeug: pip install werkzeug") from exc
        self._csp = csp
        self._types = mimetypes.MimeTypes()
        for ending, mime in TYPES.items():
            self._types.add_type(mime, ending)

    def find(self, request: Request, url: URL, fit: Fit | None = None) -> Response | None:
        """Return the answer to a request for a file, None where there is no such file.

        Args:
            request: has the conditions and the range.
            url: names the file.
            fit: changes it if it is HTML.

        Raises:
            HandshakeFailure: 405, files are only read.
        """
        path, mark, query = ("/" + url.split("/", 3)[3]).partition("?")
        found = self._locate(path)
        if found is None:
            return None
        if request.method not in ("GET", "HEAD"):
            raise HandshakeFailure(405, "this page is read with GET", (("Allow", "GET, HEAD"),))
        if found.is_dir():
            return self._folder(request, found, path, mark + query, fit)
        return self._send(request, found, fit)

    def _folder(
        self, request: Request, found: Path, path: str, query: str, fit: Fit | None
    ) -> Response | None:
        index = self._inside(found / INDEX)
        if index is None or index.is_dir():
            return None
        if path.endswith("/"):
            return self._send(request, index, fit)
        # Else its relative links would lead elsewhere.
        return Response(301, HTTPStatus(301).phrase, [("Location", f"{path}/{query}")])

    def _locate(self, path: str) -> Path | None:
        names = path.removeprefix("/").split("/")
        if names[-1] == "":
            names.pop()
        try:
            plain = [unquote_to_bytes(name).decode() for name in names]
        except UnicodeDecodeError:
            return None
        if not all(map(_is_harmless, plain)):
            return None
        found = self._inside(self._root.joinpath(*plain))
        # A slash at the end means a folder.
        return None if found is None or (path.endswith("/") and not found.is_dir()) else found

    def _inside(self, path: Path) -> Path | None:
        """Return a path without links if it leads to a file or folder within ours."""
        try:
            found = path.resolve(strict=True)
            mode = found.stat().st_mode
        except (OSError, RuntimeError, ValueError):
            return None
        if not found.is_relative_to(self._root) or not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            return None
        return found

    # Sending.

    def _send(self, request: Request, path: Path, fit: Fit | None) -> Response | None:
        mime, encoding = self._types.guess_type(path.name)
        if mime is None or encoding is not None:
            mime = "application/octet-stream"
        try:
            file = self._open(path)
            sent = (
                _send_page(request, file, mime, fit)
                if mime == "text/html"
                else _send_file(request, file, mime)
            )
        except OSError as exc:
            if exc.errno in (errno.EMFILE, errno.ENFILE):
                log.get_logger().warning("a file cannot be opened: too many files and connections are open")
                raise HandshakeFailure(503, "this host has too many open files; try again later") from exc
            return None  # Not ours to read, or gone meanwhile.
        fields = [(name, sent.headers[name]) for name in KEPT if name in sent.headers]
        fields += [
            ("Cache-Control", "no-cache"),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "same-origin"),
        ]
        if self._csp is not None:
            fields.append(("Content-Security-Policy", self._csp))
        body = _Body(sent)
        return Response(
            sent.status_code, HTTPStatus(sent.status_code).phrase, fields, body, sent.content_length
        )

    def _open(self, path: Path) -> BinaryIO:
        """Open a file that `_inside` found; what was put in its place since then is refused.

        Raises:
            OSError: it is no file any more, or a link leads to it.
        """
        by_name = os.open in os.supports_dir_fd
        file = _open_below(self._root, path.relative_to(self._root).parts) if by_name else os.open(path, READ)
        try:
            status = os.fstat(file)
            if not (stat.S_ISREG(status.st_mode) and (by_name or _is_at(path, status))):
                raise FileNotFoundError(path)
            return os.fdopen(file, "rb")
        except BaseException:
            os.close(file)
            raise


class _Body:
    """What Werkzeug sends."""

    def __init__(self, sent: Sent) -> None:
        self._sent = sent

    def __iter__(self) -> Iterator[bytes]:
        return iter(cast("Iterator[bytes]", self._sent.response))

    def close(self) -> None:
        """Close the file."""
        self._sent.close()


def _open_below(folder: Path, names: Sequence[str]) -> int:
    """Open a file in a folder, or below, one name after the other, so that no link is ever followed.

    Raises:
        OSError: there is no such file, or there is a link among the names.
    """
    at = os.open(folder, FOLDER)
    for step, name in enumerate(names, 1):
        try:
            below = os.open(name, FOLDER if step < len(names) else READ, dir_fd=at)
        finally:
            os.close(at)
        at = below
    return at


def _is_at(path: Path, status: os.stat_result) -> bool:
    """Whether a file is still at a path without links; where names cannot be opened one after the other."""
    return path.resolve(strict=True) == path and os.path.samestat(status, path.stat())


def _send_page(request: Request, file: BinaryIO, mime: str, fit: Fit | None) -> Sent:
    """Send HTML, which may be changed on its way, so that its size and time say nothing of it."""
    with file:
        page = file.read()
    if fit is not None:
        page = fit(page)
    sent = _sent(io.BytesIO(page), mime, len(page), hashlib.sha256(page).hexdigest()[:32])
    return _conditional(request, sent, len(page))


def _send_file(request: Request, file: BinaryIO, mime: str) -> Sent:
    status = os.fstat(file.fileno())
    sent = _sent(file, mime, status.st_size, f"{status.st_mtime_ns:x}-{status.st_size:x}")
    sent.last_modified = datetime.fromtimestamp(status.st_mtime, UTC)
    return _conditional(request, sent, status.st_size)


def _sent(file: IO[bytes], mime: str, size: int, etag: str) -> Sent:
    from werkzeug.wrappers import Response
    from werkzeug.wsgi import FileWrapper

    sent = Response(FileWrapper(file, PIECE), mimetype=mime, direct_passthrough=True)
    sent.content_length = size
    sent.set_etag(etag)
    return sent


def _conditional(request: Request, sent: Sent, size: int) -> Sent:
    from werkzeug.exceptions import RequestedRangeNotSatisfiable

    try:
        return sent.make_conditional(_environ(request), accept_ranges=True, complete_length=size)
    except RequestedRangeNotSatisfiable as exc:
        sent.close()
        return exc.get_response()


def _environ(request: Request) -> dict[str, object]:
    """Return what a file depends on, as WSGI has it (PEP 3333)."""
    environ: dict[str, object] = {"REQUEST_METHOD": request.method}
    for name in (
        "if-match",
        "if-none-match",
        "if-modified-since",
        "if-unmodified-since",
        "if-range",
        "range",
    ):
        value = ", ".join(request.values(name))
        if value and (name not in DATED or _can_be_date(value)):
            environ[f"HTTP_{name.upper().replace('-', '_')}"] = value
    if not ONE_RANGE.fullmatch(str(environ.get("HTTP_RANGE", ""))):
        environ.pop("HTTP_RANGE", None)
    return environ


def _can_be_date(value: str) -> bool:
    """Whether a value can be read as a date, or as none; other conditions are ignored (RFC 9110, 13.1.3)."""
    from werkzeug.http import parse_date

    try:
        parse_date(value)
    except (OverflowError, ValueError):
        return False
    return True


def _is_harmless(name: str) -> bool:
    """Whether a name means one and the same file on every system, and none that is hidden."""
    if not name or name[0] == "." or name[-1] in ". " or len(name) > LONGEST_NAME:
        return False
    return not FOREIGN.search(name) and not DEVICE.fullmatch(name)
