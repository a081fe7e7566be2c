"""Commands ask a running server over its API, as an admin."""

from __future__ import annotations

import http.client
import json
import os
import urllib.error
import urllib.request
from pathlib import Path

from protocol.errors import BadSettings, TryLater

TIMEOUT_S = 60.0


def admin_token(file: Path | None) -> str:
    """The admin token from a file, else from MILLWRIGHT_ADMIN_TOKEN. Raises BadSettings."""
    try:
        token = file.read_text(encoding="utf-8").strip() if file else os.environ.get("MILLWRIGHT_ADMIN_TOKEN", "")
    except OSError as error:
        raise BadSettings(f"cannot read the token in {file}: {error.strerror}") from error
    if not token:
        raise BadSettings("no admin token: give --token-file, or set MILLWRIGHT_ADMIN_TOKEN")
    return token


def ask(url: str, path: str, token: str, limit_bytes: int) -> bytes:
    """What the server at `url` answers to GET `path`. Raises BadSettings where it refuses or sends elsewhere (the admin token
    goes to `url` alone), TryLater where it is not there."""
    if not url.startswith(("http://", "https://")):
        raise BadSettings(f"{url!r} is no http or https URL")
    request = urllib.request.Request(url.rstrip("/") + path, headers={"Authorization": f"Bearer {token}"})  # noqa: S310
    try:
        with urllib.request.build_opener(_NoRedirects).open(request, timeout=TIMEOUT_S) as answer:
            body: bytes = answer.read(limit_bytes + 1)
    except urllib.error.HTTPError as error:
        raise BadSettings(f"{url}{path}: {_fact(error)}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise TryLater(f"{url} does not answer: {error}") from error
    if len(body) > limit_bytes:
        raise BadSettings(f"{url}{path} answers with more than {limit_bytes} bytes: no server of ours")
    return body


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect is an error as any other status is: urllib's own handler would send every header on."""

    def redirect_request(self, *_: object) -> None:
        """Nobody goes there."""


def _fact(error: urllib.error.HTTPError) -> str:
    try:
        told = json.loads(error.read(10_000))
        return f"{error.code}: {told['error']}; {told['remedy']}"
    except (ValueError, KeyError, TypeError, OSError, http.client.HTTPException, RecursionError):
        return f"{error.code} {error.reason}"
