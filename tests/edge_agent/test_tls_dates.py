"""A machine that says 1970 still reaches its server, and nobody else gets in for it."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from edge_agent.tls_dates import dated_context

IN_2040 = int(datetime(2040, 6, 1, tzinfo=UTC).timestamp() * 1000)


@dataclass
class Told:
    """A gateway's own time."""

    ms: int = IN_2040
    known: bool = True
    machine_agrees: bool = False

    def now_ms(self) -> int:
        return self.ms


def named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def certificate(folder: Path, year: int, host: str = "127.0.0.1") -> tuple[Path, Path]:
    """(authority, certificate with key) whose dates are within one year."""
    first, last = datetime(year, 1, 1, tzinfo=UTC), datetime(year, 12, 31, tzinfo=UTC)
    authority_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())

    def made(subject: str, of: ec.EllipticCurvePrivateKey, extension: x509.ExtensionType) -> bytes:
        begun = x509.CertificateBuilder().subject_name(named(subject)).issuer_name(named("authority"))
        begun = begun.public_key(of.public_key()).serial_number(x509.random_serial_number())
        dated = begun.not_valid_before(first).not_valid_after(last).add_extension(extension, critical=True)
        return dated.sign(authority_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    root, own = folder / f"ca-{year}.pem", folder / f"own-{year}-{host}.pem"
    root.write_bytes(made("authority", authority_key, x509.BasicConstraints(ca=True, path_length=None)))
    alternative = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(host))])
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    own.write_bytes(made("server", key, alternative) + secret)
    return root, own


Serve = Callable[[Path], int]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts a server with a certificate; its port."""
    listening: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def start(own: Path) -> int:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(own)
        listener = socket.create_server(("127.0.0.1", 0))
        listening.append(listener)

        def answer() -> None:
            with contextlib.suppress(OSError):
                while True:
                    plain, _ = listener.accept()
                    with contextlib.suppress(OSError), context.wrap_socket(plain, server_side=True) as link:
                        while link.recv(100):
                            pass

        threads.append(threading.Thread(target=answer, daemon=True))
        threads[-1].start()
        return int(listener.getsockname()[1])

    yield start
    for listener in listening:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
    for thread in threads:
        thread.join(5)


def connect(port: int, context: ssl.SSLContext) -> ssl.SSLSocket:
    return context.wrap_socket(socket.create_connection(("127.0.0.1", port), timeout=5), server_hostname="127.0.0.1")


def test_dates_are_judged_by_the_gateways_own_time_where_the_machine_is_wrong(tmp_path: Path, serve: Serve) -> None:
    root, own = certificate(tmp_path, 2040)
    port = serve(own)
    with pytest.raises(ssl.SSLCertVerificationError, match="not yet valid"):
        connect(port, dated_context(str(root), None))
    with pytest.raises(ssl.SSLCertVerificationError, match="not yet valid"):
        connect(port, dated_context(str(root), Told(machine_agrees=True)))
    connect(port, dated_context(str(root), Told())).close()
    with pytest.raises(ssl.SSLCertVerificationError, match="own time"):
        connect(port, dated_context(str(root), Told(ms=IN_2040 + 366 * 86_400_000)))


def test_an_unknown_time_connects_and_judges_as_soon_as_it_is_known(tmp_path: Path, serve: Serve) -> None:
    root, own = certificate(tmp_path, 2040)
    time = Told(known=False)
    context = dated_context(str(root), time)
    good = connect(serve(own), context)
    time.known = True
    context.judge_again()
    good.sendall(b"still here")
    good.close()
    time.known = False
    outdated = connect(serve(own), context)
    time.ms, time.known = IN_2040 + 366 * 86_400_000, True
    context.judge_again()
    with outdated, pytest.raises((ssl.SSLEOFError, BrokenPipeError)):
        outdated.sendall(b"cut")


def test_a_strangers_authority_and_a_strangers_name_are_refused_whatever_the_time(tmp_path: Path, serve: Serve) -> None:
    root, own = certificate(tmp_path, 2040)
    (tmp_path / "other").mkdir()
    strange_root, _ = certificate(tmp_path / "other", 2040)
    with pytest.raises(ssl.SSLCertVerificationError):
        connect(serve(own), dated_context(str(strange_root), Told(known=False)))
    root, elsewhere = certificate(tmp_path, 2040, host="10.9.8.7")
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        connect(serve(elsewhere), dated_context(str(root), Told(known=False)))
