"""What this gateway shows to brokers and servers: its certificate and its token, as they are now. A renewal changes both
while the agent runs."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from edge_agent import identity
from edge_agent.config import AgentSettings, LinkSettings
from edge_agent.enrolment import Keeper, web_context
from edge_agent.identity import AUTHORITY, CERTIFICATE, KEY, Identity
from edge_agent.tls_dates import OwnTime
from protocol.errors import BadSettings

log = logging.getLogger(__name__)


class Clock(Protocol):
    """Wall time and a clock that never jumps."""

    def now_ms(self) -> int: ...
    def monotonic_s(self) -> float: ...


class Shown:
    """tls: for the uplink, None where it is not encrypted. token: for the HTTP API, empty where the gateway has none of its
    own. web: for HTTPS, None for the system's authorities alone.

    Raises BadSettings where the identity is another gateway's. One that cannot be read is no reason not to start: the
    machines are watched, the uplink stays closed, and the log says why."""

    def __init__(self, settings: AgentSettings, time: OwnTime | None = None) -> None:
        self._settings, self._time = settings, time
        self.tls = link_context(settings.uplink, time)
        self.web: ssl.SSLContext | None = None
        self.token = ""
        self._own: ssl.SSLContext | None = None
        self._identity: Identity | None = None
        try:
            self._identity = Identity.load(settings.identity_folder)
        except BadSettings as error:
            log.error("no uplink: %s", error)
            self.tls = self.tls or identity.context(None, None, None)
        if self._identity is not None:
            self._use(self._identity)

    def keeper(self, clock: Clock, reconnect: Callable[[], None]) -> Keeper | None:
        """Who looks after renewals; None for a gateway without an identity."""
        if self._identity is None:
            return None

        def renewed(new: Identity) -> None:
            self._use(new)
            reconnect()

        url = self._settings.server.url.rstrip("/")
        return Keeper(self._identity, url, now_ms=clock.now_ms, monotonic_s=clock.monotonic_s, renewed=renewed)

    def _use(self, new: Identity) -> None:
        if new.gateway != self._settings.gateway:
            raise BadSettings(
                f"{new.folder} is the identity of {new.gateway!r}, this gateway is {self._settings.gateway!r}: enrol it"
            )
        self._identity, self.token = new, new.token
        self.web = web_context(new.authority_pem.decode())
        link, folder = self._settings.uplink, new.folder
        if not link.identity or link.tls_cert:
            return
        authority = Path(link.tls_ca) if link.tls_ca else folder / AUTHORITY
        if self._own is None:
            self.tls = self._own = identity.context(authority, folder / CERTIFICATE, folder / KEY, self._time)
        else:
            # the connection holds this very object: its next handshake shows the new certificate
            self._own.load_cert_chain(folder / CERTIFICATE, folder / KEY)


def link_context(link: LinkSettings, time: OwnTime | None = None) -> ssl.SSLContext | None:
    """TLS as a link's own settings say; `time` judges the dates of certificates where the machine's clock cannot."""
    if not link.tls_ca:
        return None
    certificate, key = (Path(file) if file else None for file in (link.tls_cert, link.tls_key))
    return identity.context(Path(link.tls_ca), certificate, key, time)
