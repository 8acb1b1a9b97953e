"""The host's own certificate authority: what it signs, and the file that it may be kept in."""

from __future__ import annotations

import base64
import datetime
import hashlib
import os
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from interceptor import Host, InvalidArgument, Tls, UnsupportedType
from interceptor.ways import certs
from interceptor.ways.certs import Authority

posix_only = pytest.mark.skipif(os.name != "posix", reason="modes say nothing on Windows")


def leaf_and_root(authority: Authority, name: str, wanted: str) -> tuple[x509.Certificate, x509.Certificate]:
    """What a client gets and believes: the leaf, and the root that is sent with it."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    back, forth = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = authority.context(name).wrap_bio(incoming, outgoing, server_side=True)
    client = ssl.create_default_context(cadata=authority.pem).wrap_bio(back, forth, server_hostname=wanted)
    done: set[ssl.SSLObject] = set()
    while len(done) < 2:
        for one in (client, server):
            try:
                one.do_handshake()
                done.add(one)
            except ssl.SSLWantReadError:
                pass
            incoming.write(forth.read())
            back.write(outgoing.read())
    leaf = x509.load_der_x509_certificate(client.getpeercert(binary_form=True) or b"")
    return leaf, x509.load_pem_x509_certificate(authority.pem.encode())


@pytest.mark.parametrize("name", ["myapp.test", "dyalog_root", "xn--caf-dma.test", "127.0.0.1", "::1"])
def test_a_certificate_for_every_name_that_a_rule_may_have(name: str) -> None:
    leaf, root = leaf_and_root(Authority(Tls()), name, name)
    leaf.verify_directly_issued_by(root)
    usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert [one.dotted_string for one in usage] == ["1.3.6.1.5.5.7.3.1"]  # Servers', and nothing else.
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc <= datetime.timedelta(days=398)


def test_another_name_is_not_believed() -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        leaf_and_root(Authority(Tls()), "myapp.test", "other.test")


def test_the_pin_is_that_of_the_authority() -> None:
    host = Host()
    certificate = x509.load_pem_x509_certificate(host.ca_pem.encode())
    spki = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert host.spki_pin == base64.b64encode(hashlib.sha256(spki).digest()).decode()
    assert host.spki_pin == host.spki_pin != Host().spki_pin


def test_a_certificate_is_made_once_for_each_name() -> None:
    authority = Authority(Tls())
    assert authority.context("a.test") is authority.context("a.test")
    assert authority.context("a.test") is not authority.context("b.test")


def test_no_key_is_left_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    Authority(Tls()).context("myapp.test")
    assert list(tmp_path.iterdir()) == []


def test_nothing_of_it_is_imported_by_hosts_that_need_no_certificate() -> None:
    code = "import sys, interceptor; interceptor.Host(); sys.exit('cryptography' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


class TestFile:
    def test_it_is_made_once_and_for_its_owner_alone(self, tmp_path: Path) -> None:
        path = tmp_path / "ca.pem"
        pins = [Host(tls=Tls(ca=kind)).spki_pin for kind in (path, str(path))]
        assert pins[0] == pins[1]
        if os.name == "posix":
            assert path.stat().st_mode & 0o777 == 0o600

    @posix_only
    @pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610])
    def test_one_that_others_can_read_or_write(self, tmp_path: Path, mode: int) -> None:
        path = tmp_path / "ca.pem"
        Authority(Tls(ca=path))
        path.chmod(mode)
        with pytest.raises(InvalidArgument, match="chmod 600"):
            Host(tls=Tls(ca=path))

    @pytest.mark.parametrize("text", ["", "nothing of use", "-----BEGIN CERTIFICATE-----\n"])
    def test_one_that_is_none(self, tmp_path: Path, text: str) -> None:
        path = private(tmp_path / "ca.pem", text.encode())
        with pytest.raises(InvalidArgument, match="not a private key and a certificate"):
            Host(tls=Tls(ca=path))

    def test_the_key_of_another_certificate(self, tmp_path: Path) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        path = private(tmp_path / "ca.pem", certs._key_pem(key) + Authority(Tls()).pem.encode())
        with pytest.raises(InvalidArgument, match="certificate of that key"):
            Host(tls=Tls(ca=path))

    def test_a_key_of_another_kind(self, tmp_path: Path) -> None:
        key = rsa.generate_private_key(65537, 2048)
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        path = private(tmp_path / "ca.pem", pem + Authority(Tls()).pem.encode())
        with pytest.raises(InvalidArgument, match="elliptic-curve"):
            Host(tls=Tls(ca=path))

    def test_one_that_has_expired(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(certs, "AUTHORITY_DAYS", -0.5)
        with pytest.raises(InvalidArgument, match="expired"):
            Host(tls=Tls(ca=tmp_path / "ca.pem"))

    def test_a_folder_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidArgument, match="cannot be used"):
            Host(tls=Tls(ca=tmp_path / "none" / "ca.pem"))

    def test_no_path_at_all(self) -> None:
        with pytest.raises(UnsupportedType, match=r"Tls\.ca"):
            Tls(ca=5)  # type: ignore[arg-type]


def private(path: Path, data: bytes) -> Path:
    """A file that its owner alone can read."""
    path.write_bytes(data)
    path.chmod(0o600)
    return path
