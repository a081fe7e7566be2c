"""Who may come in: the admin token as a bearer header or as the console's cookie; the gateway token for bundles."""

from __future__ import annotations

import hashlib
import hmac

from fastapi import HTTPException, Request

from server.config import Settings

COOKIE = "mw_session"


class Denied(Exception):  # noqa: N818 - it is an answer, not a fault
    """401 with the fact and the remedy."""


def session_of(token: str) -> str:
    """What the cookie holds: not the token, but a proof of having had it."""
    return hmac.new(token.encode(), b"millwright console", hashlib.sha256).hexdigest()


def is_admin(request: Request) -> bool:
    """Whether the caller showed the admin token."""
    settings: Settings = request.app.state.settings
    cookie = request.cookies.get(COOKIE, "")
    return _bearer_is(request, settings.admin_token) or hmac.compare_digest(
        cookie.encode(), session_of(settings.admin_token).encode()
    )


def admin(request: Request) -> None:
    """Dependency: lets admins in, raises Denied for everybody else."""
    if not is_admin(request):
        raise Denied


def gateway_or_admin(request: Request) -> None:
    """Dependency of what agents fetch."""
    if not is_admin(request) and not _bearer_is(request, request.app.state.settings.gateway_token):
        raise Denied


def watcher_or_admin(request: Request) -> None:
    """Dependency of what Prometheus reads: it has a token of its own, which opens nothing else."""
    token = request.app.state.settings.metrics_token
    if not is_admin(request) and not (token and _bearer_is(request, token)):
        raise Denied


def sent_by_the_console(request: Request, otherwise: str) -> None:
    """403 unless the page itself asks: a foreign page cannot set this header."""
    if request.headers.get("x-millwright") != "console":
        raise HTTPException(403, {"error": "not sent by the console", "remedy": f"use {otherwise}"})


def _bearer_is(request: Request, token: str) -> bool:
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    return scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), token.encode())
