"""A site of which the gateway is the copy of a real one: its readings, models, mapping, settings and everything that waits in
its outbox, with a broker, a server and machines of the drill's own. The original is only read, and nothing of the copy can
reach what the original speaks to."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import msgspec

from protocol.copied import FILE, Copied
from protocol.errors import NeedsPerson
from protocol.topics import Channel, Topic
from server.demo.accounting import complete_to
from server.drill.books import Books
from server.drill.cases import Outcome
from server.drill.held import Held, all_arrived, teach
from server.drill.machines import Beat
from server.drill.site import PATIENCE_S, Site

ROOM_MIB = 512
"""What a drill adds to a copy, at most."""
MOST_ON_A_SMALL_DISK_MIB = 512
"""That disk is in memory."""
DRAINED_A_SECOND = 300
"""Messages that wait, at the very least."""
NOT_ON_A_COPY = {
    "another-outbox": "it throws away the outbox that was copied",
    "network-parted": "it takes a gateway in a network of its own; stalled-link cuts the copy's",
    "clock-of-1970": "a gateway that has run knows that it is not 1970; this case takes a new one",
    "expired-certificate": "the key and the certificate of the real gateway are not copied",
    "offline-for-sixty-days": "it takes buckets of an hour, and a certificate, which is not copied",
}


class CopySite(Site):
    """A `Site` on a copy of the gateway that `original`, its agent.toml, describes. gateway_folder: where the copy lies, else
    in the folder. Raises NeedsPerson where there is nothing that can be copied."""

    def __init__(
        self,
        folder: Path,
        original: Path,
        database_url: str = "",
        gateway_folder: Path | None = None,
        spare: int = ROOM_MIB,
    ) -> None:
        self._original, self._spare = original, spare
        self._caught_up = False
        self._copy = gateway_folder or folder / "gateway"
        super().__init__(folder, database_url, self._copy / "data")
        self.agent_config = self._copy / "agent.toml"
        self._parts.callback(self._forget_secrets)

    def _configure_gateway(self) -> None:
        self.run(
            "copy",
            "edge_agent.once.copy",
            *("--config", str(self._original), "--to", str(self._copy), "--spare-mib", str(self._spare)),
            *("--plant-port", str(self.plant_port), "--uplink-port", str(self.link.port)),
            *("--server-url", self.server_url, "--server-root", f"{self.folder}/keys/root.json"),
            *("--token-file", f"{self.folder}/gateway.token"),
            patience_s=3600,
        )
        self.copied = told = msgspec.json.decode((self._copy / FILE).read_bytes(), type=Copied)
        self.held = Held.of(self.data / "outbox.db")
        self.topic = Topic(told.site, told.gateway, Channel.STATE, told.root)
        self.signals, self.block_steps, self.windows = told.signals, told.block_steps, told.windows
        self.history_days, self.stored_before = told.history_days, told.stored
        self.shed_before = self.held.shed_before
        self.patience_s = PATIENCE_S + len(self.held.messages) / DRAINED_A_SECOND
        self.mib = math.ceil(told.bytes / 2**20)
        t0_ms = (told.newest_ms // told.bucket_ms + 2) * told.bucket_ms
        self.beat = Beat(t0_ms, told.step_ms, told.bucket_ms // told.step_ms)

    def _before_agent(self) -> None:
        with self.database.begin() as session:
            teach(session, self.topic.site, self.gateway, self.held, self.copied.desired)

    def _settled(self) -> bool:
        """Nothing of what was copied waits either, metrics included."""
        if not super()._settled():
            return False
        if not self._caught_up:
            upto = complete_to(self.api("ledger"), self.gateway)
            newest = {lane.value: owed[-1][1] for lane, owed in self.held.owed.items() if owed}
            self._caught_up = all(upto.get(lane, 0) >= last for lane, last in newest.items())
        return self._caught_up

    def _own_books(self, found: Books) -> None:
        all_arrived(found, self.held, self.database, self.gateway)

    def on_a_small_disk(self, disk: Path) -> Site:
        if self.mib > MOST_ON_A_SMALL_DISK_MIB:
            raise NeedsPerson(f"not on a copy of {self.mib} MiB: this disk is in memory")
        return CopySite(self.folder / "full", self._original, gateway_folder=disk / "gateway", spare=0)

    def _forget_secrets(self) -> None:
        """What of the original was secret goes, also where the rest is kept."""
        (self.data / "privacy.key").unlink(missing_ok=True)


def what_waited(site: Site) -> Outcome:
    """Everything that waited in the copied outbox reaches the drill's server, once, or is named in its ledger."""
    if not isinstance(site, CopySite):
        raise NeedsPerson("only on a copy: --copy-of AGENT_TOML")
    seconds = site.settle()
    found = site.books()
    told = site.copied
    evidence = {
        "gateway": f"{told.site}/{told.gateway}",
        "copied_mib": site.mib,
        "original_at_work": told.running,
        "waited": dict(Counter(lane.value for lane, _ in site.held.messages)),
        "seconds_to_catch_up": round(seconds, 1),
        "models": {one.slot: one.version for one in told.desired.models},
        "played": [one.topic for one in told.signals],
        "not_played": told.not_played,
    }
    return Outcome(found.holds, {**evidence, **found.counts}, found.wrong)
