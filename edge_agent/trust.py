"""Whether the server's signed list names a bundle: The Update Framework's client (python-tuf) over the server's own address.

A gateway is given one file, the root, when it is set up. From it follows whose signatures count; an old list, a list that is
held back, one that was put together from parts, and a bundle that is not on it are refused. What runs already goes on
running, whatever the list says and however long it cannot be fetched."""

from __future__ import annotations

import http.client
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from edge_agent.calls import NO_ANSWER, opened
from edge_agent.updates import Fetch
from protocol.bundles import file_name
from protocol.errors import BadBundle, BadSettings, Reason, Redirected, TryLater
from protocol.twin import Assignment

if TYPE_CHECKING:
    from tuf.ngclient import FetcherInterface

Trust = Callable[[Assignment], None]
"""Raises BadBundle (unsigned) for a bundle that may not run here, TryLater where it cannot be told now."""
LISTS = "/api/v1/trust/"
CHUNK = 65_536
MOST_ROOT_BYTES = 512_000


def signed_list(
    root: bytes,
    url: str,
    token: str,
    folder: Path,
    timeout_s: float = 30.0,
    context: ssl.SSLContext | None = None,
) -> Trust:
    """Asks the list of the server at `url`, as it is now. folder: what was seen before, so that nothing older is believed."""

    def ask(assignment: Assignment) -> None:
        # a gateway that is up to date never loads it
        from tuf.api.exceptions import DownloadError, ExpiredMetadataError, RepositoryError
        from tuf.ngclient import Updater

        folder.mkdir(parents=True, exist_ok=True)
        what = f"{assignment.slot} v{assignment.version}"
        try:
            updater = Updater(
                str(folder), url.rstrip("/") + LISTS, fetcher=_fetcher(token, timeout_s, context), bootstrap=root
            )
            found = updater.get_targetinfo(file_name(assignment.digest))
        except (DownloadError, OSError, http.client.HTTPException) as error:
            if isinstance(error.__cause__, Redirected):  # the library wraps what its fetcher raises
                raise error.__cause__ from error
            raise TryLater(f"cannot fetch the signed list for {what}: {error}") from error
        except ExpiredMetadataError as error:
            raise TryLater(f"{what} waits: the signed list has expired ({error}); check clocks and server") from error
        except RepositoryError as error:
            raise BadBundle(Reason.UNSIGNED, f"the server's list is not signed as it must be: {error}") from error
        if found is None:
            raise BadBundle(Reason.UNSIGNED, f"{what} ({assignment.digest[:12]}…) is not on the server's signed list")
        if found.length != assignment.size or found.hashes.get("sha256") != assignment.digest:
            raise BadBundle(Reason.UNSIGNED, f"{what} is on the signed list with another size or digest")

    return ask


def only_signed(trust: Trust, fetch: Fetch) -> Fetch:
    """Fetches what the list names, and nothing else."""

    def fetch_signed(assignment: Assignment) -> bytes:
        trust(assignment)
        return fetch(assignment)

    return fetch_signed


def fetch_root(url: str, token: str, timeout_s: float = 30.0) -> bytes:
    """The root that a server shows, for a person to compare. Raises TryLater where it cannot be fetched."""
    try:
        with _opened(url.rstrip("/") + LISTS + "root.json", token, timeout_s) as answer:
            body = answer.read(MOST_ROOT_BYTES)
    except NO_ANSWER as error:
        raise TryLater(f"cannot fetch the root from {url}: {error}") from error
    return bytes(body)


def read_root(path: Path) -> bytes:
    """The root that a gateway is given. Raises BadSettings if it cannot be used."""
    from tuf.api.exceptions import RepositoryError
    from tuf.api.metadata import Metadata, Root

    try:
        body = path.read_bytes()
        document = Metadata[Root].from_bytes(body)
        document.verify_delegate("root", document)
    except OSError as error:
        raise BadSettings(
            f"cannot read the trusted root {path}: {error.strerror}; copy root.json from the server's keys, or set "
            "[server] unsigned_models = true to run models that nobody signed"
        ) from error
    except (RepositoryError, ValueError) as error:
        raise BadSettings(f"{path} is not a root that signed itself: {error}") from error
    return body


def _fetcher(token: str, timeout_s: float, context: ssl.SSLContext | None) -> FetcherInterface:
    """Over urllib, as bundles come."""
    from tuf.api.exceptions import DownloadHTTPError
    from tuf.ngclient import FetcherInterface

    class Fetcher(FetcherInterface):
        def _fetch(self, url: str) -> Iterator[bytes]:
            try:
                return _chunks(_opened(url, token, timeout_s, context))
            except urllib.error.HTTPError as error:
                raise DownloadHTTPError(f"the server answers {error.code} to {url}", error.code) from error

    return Fetcher()


def _opened(url: str, token: str, timeout_s: float, context: ssl.SSLContext | None = None) -> http.client.HTTPResponse:
    if not url.startswith(("http://", "https://")):
        raise BadSettings(f"server url {url!r} must be http:// or https://")
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})  # noqa: S310 - checked above
    return opened(request, timeout_s, context)


def _chunks(answer: http.client.HTTPResponse) -> Iterator[bytes]:
    with answer:
        while chunk := answer.read(CHUNK):
            yield chunk
