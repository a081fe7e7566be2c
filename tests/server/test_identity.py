"""The server's authority: what it signs, what it refuses, and whom it knows again."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given
from hypothesis import strategies as st

from edge_agent import identity as on_gateway
from edge_agent.identity import Identity
from protocol.errors import BadIdentity, BadSettings, Reason
from server.identity import CA, EVER_SINCE, Terms, requested
from tests.identities import p256, pem, request

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> CA:
    return CA.make(tmp_path_factory.mktemp("ca"), NOW)


def enrolled(ca: CA, folder: Path, name: str = "gw-1", now: datetime = NOW) -> Identity:
    key = p256()
    issued = ca.sign_request(request(name, key), name, now)
    on_gateway.replace(folder, key=pem(key), certificate=issued.pem, authority=ca.pem, token="t")
    made = Identity.load(folder)
    assert made is not None
    return made


def test_a_certificate_names_one_gateway_is_a_clients_and_lives_a_month(ca: CA) -> None:
    issued = ca.sign_request(request("gw-1"), "gw-1", NOW)
    certificate = x509.load_pem_x509_certificate(issued.pem)
    assert certificate.subject.rfc4514_string() == "CN=gw-1"
    assert (certificate.not_valid_before_utc, certificate.not_valid_after_utc) == (
        NOW - timedelta(hours=1),
        NOW + timedelta(days=30),
    )
    extensions = {type(one.value): one.value for one in certificate.extensions}
    assert extensions[x509.BasicConstraints] == x509.BasicConstraints(ca=False, path_length=None)
    assert list(extensions[x509.ExtendedKeyUsage]) == [ExtendedKeyUsageOID.CLIENT_AUTH]  # type: ignore[call-overload]
    assert x509.SubjectAlternativeName not in extensions
    assert f"{certificate.serial_number:x}" == issued.serial


def test_a_gateway_is_known_by_what_it_signed(ca: CA, tmp_path: Path) -> None:
    gateway = enrolled(ca, tmp_path / "identity")
    signature = gateway.sign(b"a file on a stick")
    assert ca.verify(gateway.certificate_pem, signature, b"a file on a stick", NOW) == "gw-1" == gateway.gateway
    other = enrolled(ca, tmp_path / "other", "gw-2")
    for certificate, payload in ((gateway.certificate_pem, b"another"), (other.certificate_pem, b"a file on a stick")):
        with pytest.raises(BadIdentity) as why:
            ca.verify(certificate, signature, payload, NOW)
        assert why.value.reason is Reason.UNSIGNED
    with pytest.raises(BadIdentity) as why:
        ca.verify(gateway.certificate_pem, b"", b"a file on a stick", NOW)
    assert why.value.reason is Reason.UNSIGNED


def test_an_expired_certificate_counts_for_its_grace_and_then_no_more(ca: CA, tmp_path: Path) -> None:
    gateway = enrolled(ca, tmp_path / "identity")
    signature = gateway.sign(b"x")
    assert ca.verify(gateway.certificate_pem, signature, b"x", NOW + timedelta(days=60)) == "gw-1"
    with pytest.raises(BadIdentity, match="longer ago than the grace") as why:
        ca.verify(gateway.certificate_pem, signature, b"x", NOW + timedelta(days=396))
    assert why.value.reason is Reason.EXPIRED
    with pytest.raises(BadIdentity, match="not yet valid"):
        ca.verify(gateway.certificate_pem, signature, b"x", NOW - timedelta(days=1))


def test_a_certificate_of_another_authority_or_for_another_purpose_is_no_gateways(ca: CA, tmp_path: Path) -> None:
    stranger = enrolled(CA.make(tmp_path / "ca", NOW), tmp_path / "identity")
    key = p256()
    host = ca.host(key.public_key(), ["broker.example"], NOW).pem
    own = ca.client(key.public_key(), "millwright-server", NOW, timedelta(days=1)).pem
    for certificate in (stranger.certificate_pem, host, own, ca.pem, b"", b"\x00" * 9000):
        with pytest.raises(BadIdentity):
            ca.verify(certificate, stranger.sign(b"x"), b"x", NOW)


STRANGE = [
    "+",
    "#",
    "gw-1/x",
    "gw/1",
    "",
    "*",
    "gw 1",
    "GW-1",
    "gw-1\x00",
    "gw-1\n",
    "$SYS",
    "ｇｗ-1",
    "g" * 65,
    ".gw",
    "%u",
]


@pytest.mark.filterwarnings("ignore:Attribute's length")
@pytest.mark.parametrize("name", STRANGE)
def test_a_strange_name_is_never_signed(ca: CA, name: str) -> None:
    with pytest.raises(BadIdentity):
        ca.sign_request(request("gw-1"), name, NOW)
    with pytest.raises(BadIdentity):
        ca.sign_request(request(name), "gw-1", NOW)


def test_the_servers_own_names_are_nobody_elses(ca: CA) -> None:
    for name in ("millwright-server", "Millwright-Server", "millwright-ca"):
        with pytest.raises(BadIdentity, match="the server's own") as why:
            ca.sign_request(request(name), name, NOW)
        assert why.value.reason is Reason.BAD_NAME


CN, O = NameOID.COMMON_NAME, NameOID.ORGANIZATION_NAME  # noqa: E741 - X.520 calls it so


@pytest.mark.parametrize(
    "attributes", [[], [(O, "gw-1")], [(CN, "gw-1"), (O, "plant")], [(CN, "gw-1"), (CN, "gw-2")], [(CN, "gw-2")]]
)
def test_a_request_names_one_cn_and_nothing_else(attributes: list[tuple[x509.ObjectIdentifier, str]]) -> None:
    with pytest.raises(BadIdentity) as why:
        requested(request(attributes), "gw-1")
    assert why.value.reason is Reason.BAD_REQUEST


@pytest.mark.parametrize(
    "extension",
    [
        x509.SubjectAlternativeName([x509.DNSName("gw-2")]),
        x509.BasicConstraints(ca=True, path_length=None),
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]),
    ],
)
def test_a_request_may_ask_for_no_extension(extension: x509.ExtensionType) -> None:
    with pytest.raises(BadIdentity, match="ask for a name only"):
        requested(request("gw-1", extension=extension), "gw-1")


def test_only_a_key_on_p256_that_signed_the_request_is_taken() -> None:
    for weak in (rsa.generate_private_key(65537, 1024), ec.generate_private_key(ec.SECP384R1())):  # noqa: S505 - that is the point
        with pytest.raises(BadIdentity, match="P-256"):
            requested(request("gw-1", weak), "gw-1")
    der = bytearray(x509.load_pem_x509_csr(request("gw-1")).public_bytes(Encoding.DER))
    der[-1] ^= 1
    forged = b"-----BEGIN CERTIFICATE REQUEST-----\n" + base64.encodebytes(der) + b"-----END CERTIFICATE REQUEST-----\n"
    with pytest.raises(BadIdentity):
        requested(forged, "gw-1")


@given(st.binary(max_size=9000))
def test_bytes_that_are_no_request_are_refused(body: bytes) -> None:
    with pytest.raises(BadIdentity):
        requested(body, "gw-1")


@given(st.integers(0, 10_000), st.integers(0, 255))
def test_a_request_with_a_changed_byte_is_refused_or_means_the_same(place: int, value: int) -> None:
    whole = request("gw-1", KEPT)
    body = bytearray(x509.load_pem_x509_csr(whole).public_bytes(Encoding.DER))
    body[place % len(body)] = value
    text = b"-----BEGIN CERTIFICATE REQUEST-----\n" + base64.encodebytes(body) + b"-----END CERTIFICATE REQUEST-----\n"
    try:
        key = requested(text, "gw-1")
    except BadIdentity:
        return
    assert key == KEPT.public_key()


KEPT = p256()


def test_hosts_hold_since_ever_so_that_a_gateway_without_a_clock_still_checks_them(ca: CA) -> None:
    issued = ca.host(p256().public_key(), ["broker.example", "10.0.0.5", "::1"], NOW)
    certificate = x509.load_pem_x509_certificate(issued.pem)
    assert certificate.not_valid_before_utc == EVER_SINCE == ca.certificate.not_valid_before_utc
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["broker.example"]
    assert len(names.get_values_for_type(x509.IPAddress)) == 2
    for bad in ("*.example", "a b", "-x", "x" * 254, ""):
        with pytest.raises(BadSettings, match="neither a host name"):
            ca.host(p256().public_key(), [bad], NOW)


def test_the_list_of_revoked_names_serials_and_outlives_everybody(ca: CA) -> None:
    issued = ca.sign_request(request("gw-1"), "gw-1", NOW)
    revoked = x509.load_pem_x509_crl(ca.revocations([(issued.serial, NOW)], NOW))
    assert [f"{one.serial_number:x}" for one in revoked] == [issued.serial]
    assert revoked.is_signature_valid(ca.key.public_key())
    assert revoked.next_update_utc == ca.certificate.not_valid_after_utc


def test_the_authoritys_key_is_its_owners_alone_and_is_made_once(tmp_path: Path) -> None:
    made = CA.make(tmp_path / "ca", NOW, Terms(lives=timedelta(days=7)))
    assert (tmp_path / "ca" / "ca.key").stat().st_mode & 0o777 == 0o600
    assert CA.load(tmp_path / "ca").pem == made.pem
    with pytest.raises(BadSettings, match="holds an authority already"):
        CA.make(tmp_path / "ca", NOW)
    (tmp_path / "ca" / "ca.key").write_bytes(pem(p256()))
    with pytest.raises(BadSettings, match="is not the key of"):
        CA.load(tmp_path / "ca")
    with pytest.raises(BadSettings, match="ca init"):
        CA.load(tmp_path / "none")
