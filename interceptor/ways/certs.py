"""The host's own certificate authority: it signs a certificate for each name whose TLS the host ends.

No system and no browser trusts it by itself: a browser that the program starts is told its pin (a hash of the
authority's public key), and nobody else is told anything.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import hashlib
import ipaddress
import os
import ssl
import stat
import tempfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ..config import Tls
from ..exceptions import InvalidArgument
from .gate import HTTP_1

__all__ = ["Authority"]

Key = ec.EllipticCurvePrivateKey
Pair = tuple[Key, x509.Certificate]

DAY = datetime.timedelta(days=1)
AUTHORITY_DAYS = 3650
LEAF_DAYS = 397
"""The longest that browsers take from authorities that a system trusts."""

CACHE = 1024
"""Names whose certificates are kept."""


class Authority:
    """A certificate authority, new or read from its file.

    Args:
        tls: `ca` counts.

    Attributes:
        context: returns what ends TLS for a host name or an IP address (without brackets).
        pem: the authority's certificate.

    Raises:
        InvalidArgument: the file cannot be used; says why.
    """

    def __init__(self, tls: Tls) -> None:
        self._key, self._certificate = _make_authority() if tls.ca is None else _from_file(Path(tls.ca))
        self.context = lru_cache(maxsize=CACHE)(self._make_context)
        self.pem = _pem(self._certificate).decode()

    @property
    def pin(self) -> str:
        """Base64 of the SHA-256 of the authority's SubjectPublicKeyInfo (RFC 7469 section 2.4)."""
        spki = self._certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return base64.b64encode(hashlib.sha256(spki).digest()).decode()

    def make_probe(self, reader: type[ssl.SSLObject], note: Callable[..., int | None]) -> ssl.SSLContext:
        """Return what reads the first message of TLS clients, and would rather have HTTP/2; it serves nobody.

        Args:
            reader: made for each client.
            note: called with a reader and the name that the client gave.
        """
        context = self._make_context("probe")
        context.set_alpn_protocols(["h2"])
        context.sslobject_class = reader
        context.sni_callback = note
        return context

    def _make_context(self, name: str) -> ssl.SSLContext:
        key = ec.generate_private_key(ec.SECP256R1())
        chain = _pem(self._sign(name, key)) + _pem(self._certificate)
        return _server_context(_key_pem(key) + chain)

    def _sign(self, name: str, key: Key) -> x509.Certificate:
        issuer_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return (
            _builder(f"interceptor: {name}"[:64], self._certificate.subject, key, LEAF_DAYS)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(issuer_id, critical=False)
            .add_extension(x509.SubjectAlternativeName([_general_name(name)]), critical=False)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .sign(self._key, SHA256())
        )


def _make_authority() -> Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _name("interceptor, made on this machine for this machine")
    certificate = (
        _builder(subject, subject, key, AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(_signs_certificates(), critical=True)
        .sign(key, SHA256())
    )
    return key, certificate


def _builder(subject: str | x509.Name, issuer: x509.Name, key: Key, days: int) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(subject) if isinstance(subject, str) else subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - DAY)
        .not_valid_after(now + days * DAY)
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _signs_certificates() -> x509.KeyUsage:
    rest = dict.fromkeys(
        (
            "content_commitment",
            "data_encipherment",
            "decipher_only",
            "digital_signature",
            "encipher_only",
            "key_agreement",
            "key_encipherment",
        ),
        False,
    )
    return x509.KeyUsage(key_cert_sign=True, crl_sign=True, **rest)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.PEM)


def _key_pem(key: Key) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _server_context(pem: bytes) -> ssl.SSLContext:
    """Return a context with a key and its chain; ssl reads them from a file only, its owner's alone."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(HTTP_1)
    handle, path = tempfile.mkstemp(prefix="interceptor-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(pem)
        context.load_cert_chain(path)
    finally:
        os.unlink(path)
    return context


def _from_file(path: Path) -> Pair:
    """Read the authority from its file; make the file if there is none."""
    try:
        if not path.exists():
            _write(path)
        return _parse(_read(path), path)
    except OSError as exc:
        raise InvalidArgument(f"Tls.ca: {path} cannot be used: {exc.strerror or exc}") from exc


def _write(path: Path) -> None:
    """Make the file, whole at once: another process may be about to do the same, and the first one counts."""
    key, certificate = _make_authority()
    handle, new = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")  # For its owner alone.
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(_key_pem(key) + _pem(certificate))
        with contextlib.suppress(FileExistsError):
            os.link(new, path) if hasattr(os, "link") else os.rename(new, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new)


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        found = os.fstat(file.fileno())
        # On Windows the mode says nothing about who may read.
        if os.name == "posix" and (found.st_mode & 0o077 or found.st_uid not in (0, os.geteuid())):
            raise InvalidArgument(
                f"Tls.ca: others can read {path} (mode {stat.filemode(found.st_mode)}), and whoever has its "
                f"key can pass for any server before your browser; chmod 600 it, or make a new one"
            )
        return file.read()


def _parse(pem: bytes, path: Path) -> Pair:
    try:
        key = load_pem_private_key(pem, None)
        certificate = x509.load_pem_x509_certificate(pem)
    except (ValueError, TypeError) as exc:
        raise InvalidArgument(
            f"Tls.ca: {path} is not a private key and a certificate in PEM; name a file that is not there "
            "yet, and the host makes it"
        ) from exc
    if certificate.not_valid_after_utc < datetime.datetime.now(datetime.UTC):
        raise InvalidArgument(
            f"Tls.ca: the certificate in {path} has expired; remove it, and the host makes one"
        )
    if not isinstance(key, Key) or key.public_key() != certificate.public_key():
        raise InvalidArgument(f"Tls.ca: {path} needs an elliptic-curve key and the certificate of that key")
    return key, certificate
