"""The same site as a plant's IT sets it up: an authority, a broker that asks for certificates, HTTPS, an enrolled gateway."""

from __future__ import annotations

import getpass
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from protocol.errors import NeedsPerson
from server import broker_config, enrolment, revocation
from server.__main__ import migrate
from server.config import load
from server.database import Database
from server.demo.processes import mosquitto, wait_until_listening
from server.drill.site import GATEWAY, UPLINK, Site
from server.identity import CA

LOOPBACK = "127.0.0.1"


class SecureSite(Site):
    """A `Site` whose uplink and HTTP API know the gateway by its certificate. Raises NeedsPerson without a Mosquitto."""

    scheme = "https"

    def _configure(self) -> None:
        super()._configure()
        config = self.folder / "server.toml"
        tls, broker = self.folder / "tls", self.folder / "broker"
        config.write_text(
            f'tls_cert = "{tls}/host.pem"\ntls_key = "{tls}/host.key"\n{config.read_text()}'
            f'host = "{LOOPBACK}"\nidentity = true\n[identity]\nbroker = "{broker}"\nrequired = true\n'
        )
        settings = load(config, {})
        now = datetime.now(UTC)
        authority = CA.make(settings.authority_folder, now, revocation.terms(settings))
        broker_config.write_host(authority, tls, [LOOPBACK], now)
        migrate(settings)
        database = Database(settings.database)
        broker_config.write(settings, database, broker, [LOOPBACK], self._uplink_port)
        database.close()
        self.api_context = ssl.create_default_context(cadata=authority.pem.decode())

    def _start_uplink_broker(self) -> None:
        program = mosquitto()
        if program is None:
            raise NeedsPerson("certificates need a mosquitto on the PATH (Debian: apt-get install mosquitto)")
        folder = self.folder / "broker"
        written = (folder / broker_config.CONFIGURATION).read_text()
        # for a drill: of whoever plays it, and with nothing kept outside its folder
        own = written.replace("/var/lib/mosquitto/", f"{folder}/") + f"user {getpass.getuser()}\n"
        (folder / "drill.conf").write_text(
            own.replace(f"listener {self._uplink_port}", f"listener {self._uplink_port} {LOOPBACK}")
        )
        self.processes.start(UPLINK, [program, "-c", str(folder / "drill.conf")])
        wait_until_listening(self.processes, UPLINK, self._uplink_port)

    def _before_agent(self) -> None:
        """Enrols, with a one-time token, over HTTPS."""
        token, server, agent = self.folder / "enrol.token", self.folder / "server.toml", self.folder / "agent.toml"
        self.run("enrol-token", "server", "enrol-token", GATEWAY, "--config", str(server), "--out", str(token))
        url = f"https://{LOOPBACK}:{self.http_port}"
        self.run("enrol", "edge_agent", "enrol", "--config", str(agent), "--server", url, "--token-file", str(token))

    def certificate(self) -> x509.Certificate:
        """What the gateway has now."""
        return x509.load_pem_x509_certificate((self.data / "identity" / "cert.pem").read_bytes())

    def let_certificate_expire(self, ago: timedelta) -> None:
        """The gateway's certificate becomes one for the same key that ended so long ago."""
        settings = load(self.folder / "server.toml", {})
        authority = CA.load(settings.authority_folder, revocation.terms(settings))
        key = self.certificate().public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise NeedsPerson("the gateway's key is not on an elliptic curve")
        then = datetime.now(UTC) - ago - authority.terms.lives
        issued = authority.client(key, GATEWAY, then, authority.terms.lives)
        with self.database.begin() as session:
            enrolment.book(session, issued, "a drill", then)
        Path(self.data / "identity" / "cert.pem").write_bytes(issued.pem)
