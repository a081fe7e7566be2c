"""What random kills leave of a site's books, and how fast a gateway empties its outbox.

    python benchmarks/sync.py [--subset KILLS] [--quick] [--json]

Real processes on loopback, as in `millwright drill`: two Mosquittos, a server on PostgreSQL where that is installed (else
SQLite), one gateway, and machines that publish 320 readings a second.

kills    kill -9 of agent, uplink's broker and server at random moments (every 0.2 to 3 s, started again within a second,
         whether they had come up or not). The books are read every hundred: lost is what the plant's broker passed on, the
         gateway numbered or the operator answered and that is not in the database; twice is what is there twice. KILLS: 200
         unless given
drain    an outbox with 40,000 blocks meets its server ([replay] without a limit), against what the same server takes in from
         sixteen gateways at once (`server_intake.py`), both on SQLite

--quick: 12 kills, a tenth of the blocks."""

from __future__ import annotations

import contract  # isort: skip - sets one thread before numpy comes

import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import server_intake
from server_intake import T0, block, emptied, postgres, taken_in

from edge_agent.outbox import Outbox
from protocol.clocks import ClockConfidence
from protocol.names import MessageClass
from protocol.sync import encode, envelope
from server.demo.accounting import complete_to
from server.drill.kills import kill_at_random
from server.drill.proxy import Faults
from server.drill.site import AGENT, GATEWAY, SITE, Site

KILLS, QUICK_KILLS = 200, 12
WAITING, QUICK_WAITING = 160_000, 4000
DRAIN = 0.8


def kills(sheet: contract.Sheet, folder: Path) -> None:
    """Rows of the kills."""
    asked = sheet.options.subset or str(QUICK_KILLS if sheet.options.quick else KILLS)
    if not asked.isdigit():
        raise SystemExit(f"sync: --subset {asked}: give a number of kills")
    with ExitStack() as stack:
        url = stack.enter_context(postgres(folder))
        if url is None:
            sheet.note(
                "PostgreSQL's server is not installed (Debian: apt-get install postgresql): the kills are on SQLite"
            )
        site = stack.enter_context(Site(folder / "kills", url or ""))
        killed = kill_at_random(site, int(asked), say=sheet.say)
    for fault in killed.books.wrong:
        sheet.note(fault)
    wrong = killed.books.counts.get("wrong", 0)
    counts: dict[str, Any] = {name: n for name, n in killed.books.counts.items() if name != "wrong"}
    sheet.row(
        "kill -9 of agent, broker and server",
        "lost or twice",
        wrong,
        target=0,
        holds=wrong == 0,
        n=sum(killed.kills.values()),
        seconds=killed.seconds,
        kills=killed.kills,
        longest_catching_up_s=round(killed.catching_up_s, 1),
        database="SQLite" if url is None else "PostgreSQL",
        **counts,
    )


class FullSite(Site):
    """A site whose gateway has much to say before it starts."""

    waiting = 0

    def _configure(self) -> None:
        super()._configure()
        config = self.folder / "agent.toml"
        config.write_text(f"{config.read_text()}[replay]\nmessages_per_s = 0\n")

    def _before_agent(self) -> None:
        self.link.faults = Faults(refused=True)
        outbox = Outbox(self.data / "outbox.db", 1_000_000_000)
        for seq in range(1, self.waiting + 1):
            made = envelope(
                block(seq), site=SITE, gateway=GATEWAY, seq=seq, boot="b", clock=ClockConfidence.SYNCED, time_ms=T0
            )
            outbox.add(MessageClass.BULK, encode(made))
            if seq % 1000 == 0:
                outbox.commit()
        outbox.commit()
        outbox.close()


def arrived(site: Site) -> int:
    """Blocks that the server has without a gap."""
    return complete_to(site.api("ledger"), GATEWAY).get(MessageClass.BULK.value, 0)


def drain(sheet: contract.Sheet, folder: Path) -> None:
    """The row of the outbox that empties."""
    site = FullSite(folder / "drain")
    site.waiting = QUICK_WAITING if sheet.options.quick else WAITING
    with site:
        site.kill(AGENT)
        site.link.faults = Faults()
        before, began = 0, 0.0
        site.launch(AGENT)
        while not before:
            before, began = arrived(site), time.perf_counter()
        site.wait("the outbox", lambda: arrived(site) >= site.waiting, 600)
        seconds = time.perf_counter() - began
    left = site.waiting - before
    batches = site.waiting // server_intake.GATEWAYS // server_intake.A_BATCH
    url = f"sqlite:///{folder}/intake.db"
    server_intake.prepared(url)
    reference = server_intake.GATEWAYS * batches * server_intake.A_BATCH / taken_in(folder, url, batches, 1)
    emptied(url)
    ours = left / seconds
    sheet.row(
        "a full outbox empties",
        "messages/s / server's intake",
        ours / reference,
        target=DRAIN,
        holds=ours / reference >= DRAIN,
        n=left,
        seconds=seconds,
        messages_a_second=round(ours),
        server_a_second=round(reference),
    )


def measure(sheet: contract.Sheet) -> None:
    """The fast one first."""
    with tempfile.TemporaryDirectory(prefix="millwright-sync-") as name:
        folder = Path(name)
        drain(sheet, folder)
        kills(sheet, folder)


if __name__ == "__main__":
    sys.exit(contract.run("sync", __doc__, measure, needs_data=False))
