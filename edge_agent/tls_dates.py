"""TLS where the machine's clock cannot judge the dates of certificates.

While the machine's clock agrees with the gateway's own time, OpenSSL checks dates as ever. Where it does not (1970, a
jump that nobody confirmed), "not yet valid" would keep the gateway out for ever: then OpenSSL checks the chain and the
name, and the dates of the server's certificate are judged by the gateway's own time, right after the handshake. While
that is unknown too, dates are not judged until it is known; a connection that turns out to be with an outdated
certificate is cut then."""

from __future__ import annotations

import logging
import socket
import ssl
import weakref
from typing import Any, Protocol

log = logging.getLogger(__name__)
NO_CHECK_TIME = ssl.VerifyFlags(0x200000)
"""X509_V_FLAG_NO_CHECK_TIME, which the ssl module does not name."""


class OwnTime(Protocol):
    """What a gateway knows of the time beside what its machine says; `edge_agent.clock.Timekeeper` is one."""

    def now_ms(self) -> int: ...
    @property
    def known(self) -> bool: ...
    @property
    def machine_agrees(self) -> bool: ...


class DatedContext(ssl.SSLContext):
    """A client's context whose handshakes are judged by `time`; without one, as by any context."""

    time: OwnTime | None = None

    def __new__(cls) -> DatedContext:
        """TLS for a client: the chain and the name of the server are always checked."""
        made = super().__new__(cls, ssl.PROTOCOL_TLS_CLIENT)
        made.sslsocket_class = DatedSocket
        return made

    def __init__(self) -> None:
        self._unjudged: weakref.WeakKeyDictionary[DatedSocket, tuple[float, float]] = weakref.WeakKeyDictionary()

    def wrap_socket(self, *arguments: Any, **named: Any) -> ssl.SSLSocket:
        """As any context does, with or without OpenSSL's own look at dates."""
        right = self.time is None or (self.time.known and self.time.machine_agrees)
        self.verify_flags = self.verify_flags & ~NO_CHECK_TIME if right else self.verify_flags | NO_CHECK_TIME
        return super().wrap_socket(*arguments, **named)

    def judge(self, connection: DatedSocket) -> None:
        """After a handshake. Raises SSLCertVerificationError for a certificate that is outdated or not valid yet."""
        if self.time is None or not self.verify_flags & NO_CHECK_TIME:
            return
        certificate: Any = connection.getpeercert()
        dates = tuple(ssl.cert_time_to_seconds(certificate[field]) for field in ("notBefore", "notAfter"))
        if not self.time.known:
            log.warning("TLS to %s: the clock is unknown, dates are judged later", connection.server_hostname)
            self._unjudged[connection] = (dates[0], dates[1])
        elif not dates[0] <= self.time.now_ms() / 1000 <= dates[1]:
            raise ssl.SSLCertVerificationError(
                f"certificate of {connection.server_hostname} is valid from {certificate['notBefore']} to "
                f"{certificate['notAfter']}, which is not now by the gateway's own time"
            )

    def judge_again(self) -> None:
        """The time is known now: connections with certificates that are not valid are cut."""
        if self.time is None or not self.time.known:
            return
        now_s = self.time.now_ms() / 1000
        for connection, (first_s, last_s) in list(self._unjudged.items()):
            if not first_s <= now_s <= last_s:
                log.warning("TLS to %s is cut: its certificate is not valid now", connection.server_hostname)
                socket.socket.shutdown(connection, socket.SHUT_RDWR)  # the reading thread sees an end, nothing else
        self._unjudged.clear()


class DatedSocket(ssl.SSLSocket):
    """A connection of a `DatedContext`."""

    def do_handshake(self, block: bool = False) -> None:
        """As any, then the dates."""
        super().do_handshake(block)
        context = self.context
        if isinstance(context, DatedContext):
            context.judge(self)


def dated_context(authority: str | None, time: OwnTime | None) -> DatedContext:
    """For a server whose certificate comes from the authority in this file, or from one that the system trusts."""
    context = DatedContext()
    context.time = time
    if authority is None:
        context.load_default_certs()
    else:
        context.load_verify_locations(cafile=authority)
    return context
