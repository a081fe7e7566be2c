"""How the gateway calls its server over HTTP(S). A redirect is refused, never followed: the token, and what is sent with it,
are for the address that a person wrote down, and no answer moves them to another host or off TLS (RFC 9110, section 15.4,
leaves that to the client)."""

from __future__ import annotations

import http.client
import ssl
import urllib.request
from email.message import Message
from typing import IO, NoReturn

from protocol.errors import Redirected

NO_ANSWER = (OSError, http.client.HTTPException, ValueError)
"""What urllib raises where nobody answers, what answers speaks no HTTP, or the address is none."""
MOST_TOLD = 200


def opened(
    request: urllib.request.Request, timeout_s: float, context: ssl.SSLContext | None
) -> http.client.HTTPResponse:
    """The server's answer to a request whose address the caller has checked. Raises Redirected where it sends elsewhere,
    urllib.error.HTTPError for any other status but 2xx, and what NO_ANSWER lists."""
    opener = urllib.request.build_opener(_NoRedirects, urllib.request.HTTPSHandler(context=context))
    answer: http.client.HTTPResponse = opener.open(request, timeout=timeout_s)
    return answer


def redirected(url: str, status: int, location: str | None) -> Redirected:
    """The error that says where somebody was sent. location: as it was answered, whatever that is."""
    where = repr((location or "")[:MOST_TOLD])
    return Redirected(
        f"{url} answers {status} and sends on to {where}; a redirect is not followed: [server] url must be the server's own "
        "address, and no proxy or login page may stand in between"
    )


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """In the place of the handler that follows, and hands every header on."""

    def http_error_302(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message
    ) -> NoReturn:
        """Raises Redirected."""
        fp.close()
        raise redirected(req.full_url, code, headers.get("Location"))

    http_error_300 = http_error_301 = http_error_303 = http_error_305 = http_error_307 = http_error_308 = http_error_302
