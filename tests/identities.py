"""Keys and requests as gateways make them, and as attackers do."""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

Key = ec.EllipticCurvePrivateKey


def p256() -> Key:
    return ec.generate_private_key(ec.SECP256R1())


def pem(key: Key | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def request(
    name: str | list[tuple[x509.ObjectIdentifier, str]],
    key: Key | rsa.RSAPrivateKey | None = None,
    extension: x509.ExtensionType | None = None,
) -> bytes:
    """A request (PKCS #10) for one CN, or for whatever a list of attributes says."""
    attributes = [(NameOID.COMMON_NAME, name)] if isinstance(name, str) else name
    subject = x509.Name([x509.NameAttribute(oid, value, _validate=False) for oid, value in attributes])
    builder = x509.CertificateSigningRequestBuilder(subject)
    if extension is not None:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(key or p256(), hashes.SHA256()).public_bytes(Encoding.PEM)
