"""One name for one person, that only the site can tell: HMAC-SHA256 with a key that never leaves it.

Gateways of a site that are given the same key file give the same person the same pseudonym."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import unicodedata
from pathlib import Path

from protocol.errors import BadSettings

KEY_BYTES = 32


class Pseudonyms:
    """Pseudonyms by the site key at `path`, which is made (mode 600) if it is not there. Raises BadSettings for a key
    that others may read, that is too short, or that cannot be made."""

    def __init__(self, path: Path) -> None:
        self._key = _key(path)

    def person(self, name: str) -> str:
        """A pseudonym of 18 characters, the same for all spellings that differ in case, width or spaces; empty for no
        name."""
        plain = " ".join(unicodedata.normalize("NFKC", name).casefold().split())
        return self._digest("p", "person", plain) if plain else ""

    def machine(self, name: str) -> str:
        """A pseudonym of 18 characters for exactly this name."""
        return self._digest("m", "machine", name)

    def _digest(self, letter: str, what: str, name: str) -> str:
        return f"{letter}-" + hmac.new(self._key, f"{what}\x1f{name}".encode(), hashlib.sha256).hexdigest()[:16]


def _key(path: Path) -> bytes:
    try:
        return _read(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise BadSettings(f"cannot read the site key {path}: {error.strerror}") from error
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(KEY_BYTES) + "\n")
            file.flush()
            os.fsync(file.fileno())
        return _read(path)
    except OSError as error:
        raise BadSettings(f"cannot make the site key {path}: {error.strerror}") from error


def _read(path: Path) -> bytes:
    text = path.read_text(encoding="ascii", errors="replace").strip()
    if path.stat().st_mode & 0o077:
        raise BadSettings(f"others may read the site key {path}; chmod 600 it, and think about who has read it")
    try:
        key = bytes.fromhex(text)
    except ValueError as error:
        raise BadSettings(f"{path} is no site key; it must be {KEY_BYTES} bytes in hexadecimal") from error
    if len(key) < KEY_BYTES:
        raise BadSettings(f"the site key {path} is too short; it must be {KEY_BYTES} bytes in hexadecimal")
    return key
