"""How a gateway comes by its certificate: what is asked of the server over HTTPS, and what the server answers.

A one-time token, or the certificate that the gateway has, stands for who asks; the key is the gateway's own and never
leaves it. A renewal is signed by the key of the present certificate, inside the request: so it can be asked for when that
certificate has run out and no TLS library would take it any more, and through a proxy that ends TLS."""

from __future__ import annotations

from typing import Annotated

import msgspec

from protocol.errors import BadIdentity, Reason

ENROL, RENEW = "/api/v1/enrol", "/api/v1/renew"
MOST_BODY_BYTES = 64_000
TOKEN_PREFIX = "mw1."  # noqa: S105 - how a token begins, not a token
_RENEWAL = b"millwright renewal v1\n"
_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
Pem = Annotated[str, msgspec.Meta(min_length=1, max_length=8_000)]


class Enrolment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A gateway's first request. request: PKCS #10 for the name that the token is for, and nothing else."""

    token: Annotated[str, msgspec.Meta(min_length=8, max_length=200)]
    request: Pem


class Renewal(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A later one, for a new key. signature: over `to_sign(request)`, by the key of `certificate` (ECDSA, DER)."""

    certificate: Pem
    request: Pem
    signature: Annotated[bytes, msgspec.Meta(max_length=200)]


class CarriedRenewal(msgspec.Struct, frozen=True, kw_only=True):
    """The same in a file that people carry, whose header has the certificate. token_digest: SHA-256 (hex) of what the HTTP
    API shall take from this gateway: the gateway makes it, so that no secret travels with the file."""

    request: Pem
    signature: Annotated[bytes, msgspec.Meta(max_length=200)]
    token_digest: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


class Granted(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to all. token: what the HTTP API takes from this gateway (empty in a file: the gateway has it). root: whose
    signatures on models count (TUF), empty where the server has none. now_ms: the server's clock."""

    gateway: str
    certificate: str
    authority: str
    token: str
    now_ms: int
    root: str = ""


class TokenFile(msgspec.Struct, frozen=True, kw_only=True):
    """What a person carries to the gateway: the token, and whom to send it to (the server's authority, PEM)."""

    token: str
    authority: str

    def text(self, comment: str = "") -> str:
        """The file."""
        return f"# {comment}\n{self.token}\n{self.authority.strip()}\n"

    @classmethod
    def read(cls, text: str) -> TokenFile:
        """Raises BadIdentity for a file that is not one of ours."""
        token = next((line.strip() for line in text.splitlines() if line.startswith(TOKEN_PREFIX)), "")
        begin, end = text.find(_BEGIN), text.rfind(_END)
        if not token or begin < 0 or end < begin:
            raise BadIdentity(
                Reason.TOKEN_UNKNOWN,
                f"no token file: it has a line that begins with {TOKEN_PREFIX} and the authority's certificate; "
                "`millwright server enrol-token GATEWAY --out FILE` writes one",
            )
        return cls(token=token, authority=text[begin : end + len(_END)] + "\n")


def to_sign(request: str) -> bytes:
    """The bytes that a renewal's signature is over; they cannot be taken for anything else that a gateway signs."""
    return _RENEWAL + request.encode()
