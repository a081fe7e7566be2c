"""The server's own signature, ed25519 (RFC 8032): under what it states, not under models, which have keys of their own.

`seal.key` is made once and never leaves the folder of keys; `seal.pub` beside it is for everybody who checks."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from protocol.errors import BadSettings

KEY_FILE, PUBLIC_FILE = "seal.key", "seal.pub"


class Seal:
    """A key that signs. `public_pem` is for others, `key` (SHA-256 of the raw public key, hex) names it."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public_pem = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        self.key = key_name(private.public_key())

    @classmethod
    def of(cls, folder: Path) -> Seal:
        """The key in `folder`; made there if there is none, once, however many processes ask. Raises BadSettings."""
        path = folder / KEY_FILE
        try:
            if not path.exists():
                fresh = Ed25519PrivateKey.generate()
                _write_once(path, fresh.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), 0o600)
            private = load_pem_private_key(path.read_bytes(), password=None)
            if not isinstance(private, Ed25519PrivateKey):
                raise BadSettings(f"{path} is no ed25519 key; move it away and a new one is made")
            made = cls(private)
            if not (folder / PUBLIC_FILE).exists():
                _write_once(folder / PUBLIC_FILE, made.public_pem, 0o644)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise BadSettings(f"{path} is not a private key in PEM without a passphrase") from error
        except OSError as error:
            raise BadSettings(f"cannot read or make the key {path}: {error.strerror}") from error
        return made

    def sign(self, payload: bytes) -> str:
        """The signature, 64 bytes as hex."""
        return self._private.sign(payload).hex()


def is_signed_by(public: Ed25519PublicKey, signature: str, payload: bytes) -> bool:
    """Whether `signature` (hex) is of these bytes by this key."""
    try:
        public.verify(bytes.fromhex(signature), payload)
    except (InvalidSignature, ValueError):
        return False
    return True


def read_public(path: Path) -> Ed25519PublicKey:
    """The public key in a PEM file. Raises BadSettings."""
    try:
        public = load_pem_public_key(path.read_bytes())
    except OSError as error:
        raise BadSettings(f"cannot read the public key {path}: {error.strerror}") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise BadSettings(f"{path} is no public key in PEM: {error}") from error
    if not isinstance(public, Ed25519PublicKey):
        raise BadSettings(f"{path} is no ed25519 key")
    return public


def key_name(public: Ed25519PublicKey) -> str:
    """What a key is called: SHA-256 of its 32 bytes, hex."""
    return hashlib.sha256(public.public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()


def _write_once(path: Path, body: bytes, mode: int) -> None:
    """A whole file beside its place, then linked there: of several that write it one wins, and nobody reads half of it."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(name, path)
    finally:
        Path(name).unlink()
