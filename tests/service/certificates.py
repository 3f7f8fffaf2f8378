"""Certificates for tests: an authority, a server and a client, made once for a process."""

from __future__ import annotations

import atexit
import datetime
import ipaddress
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class Files(NamedTuple):
    """PEM files."""

    ca: str
    server_cert: str
    server_key: str
    client_cert: str
    client_key: str


@cache
def certificates(name: str = "walsvc test authority") -> Files:
    """Files of an authority called `name` and of two certificates by it; the server's is for 127.0.0.1 and localhost."""
    directory = Path(tempfile.mkdtemp(prefix="walsvc-certificates-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    authority = ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    write(directory / "ca.pem", made(issuer, issuer, authority, authority, authority_itself=True))
    for whose in ("server", "client"):
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, whose)])
        write(directory / f"{whose}.pem", made(subject, issuer, key, authority))
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (directory / f"{whose}.key").write_bytes(pem)
    files = ("ca.pem", "server.pem", "server.key", "client.pem", "client.key")
    return Files(*(str(directory / file) for file in files))


def made(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    signer: ec.EllipticCurvePrivateKey,
    *,
    authority_itself: bool = False,
) -> x509.Certificate:
    """A certificate for a day."""
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    signers_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    usage = dict.fromkeys(
        (
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=authority_itself, path_length=None), critical=True)
        .add_extension(
            x509.KeyUsage(digital_signature=True, key_cert_sign=authority_itself, crl_sign=authority_itself, **usage),
            critical=True,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(signers_id, critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(signer, hashes.SHA256())
    )


def write(path: Path, certificate: x509.Certificate) -> None:
    """Write a certificate as PEM."""
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
