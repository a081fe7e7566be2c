"""A small site of real processes on loopback: the plant's broker, the uplink's broker behind a proxy of bad links, a server,
and one gateway. Everything that the drill breaks, it breaks here."""

from __future__ import annotations

import json
import os
import secrets
import signal
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.error import URLError
from urllib.request import Request, urlopen

from protocol.errors import NeedsPerson, TryLater
from protocol.topics import Channel, Topic
from server.database import Database
from server.demo.accounting import complete_to
from server.demo.processes import Processes, free_port, start_broker
from server.drill import books
from server.drill.books import Books
from server.drill.machines import MAPPING, SIGNALS, Beat, Machines
from server.drill.proxy import FaultProxy

SITE, GATEWAY = "drill", "gateway"
PLANT, UPLINK, SERVER, AGENT = "plant-broker", "uplink-broker", "server", "agent"
PARTS = (UPLINK, SERVER, AGENT)
"""What may be killed. The plant's broker may not: what it loses was never accepted."""
PATIENCE_S = 120.0
QUICK = Beat()


class Site:
    """A context manager. `database_url`: a database of one's own, else SQLite in the folder. `data_dir`: where the gateway
    keeps its files, else in the folder. `beat`: when the machines' ticks are."""

    scheme = "http"
    api_context: ssl.SSLContext | None = None

    simulated = True
    """The gateway's time is that of the newest reading."""

    def __init__(self, folder: Path, database_url: str = "", data_dir: Path | None = None, beat: Beat = QUICK) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.data = data_dir or folder / "data"
        self.topic = Topic(SITE, GATEWAY, Channel.STATE)
        self.plant_port, self._uplink_port, self.http_port = free_port(), free_port(), free_port()
        self._database_url = database_url or f"sqlite:///{folder}/server.db"
        self.beat = beat
        self._admin_token, self._gateway_token = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        self._parts = ExitStack()

    def __enter__(self) -> Self:
        try:
            self.processes = self._parts.enter_context(Processes(self.folder))
            start_broker(self.processes, self.folder, self.plant_port, PLANT)
            self.link = self._parts.enter_context(FaultProxy(self._uplink_port))
            self.download = self._parts.enter_context(FaultProxy(self.http_port))
            self._configure()
            self._start_uplink_broker()
            self.start(SERVER)
            self._before_agent()
            self.start(AGENT)
            self.machines = Machines(self.plant_port, self.topic, self.beat)
            self._parts.callback(self.machines.close)
            self.database = Database(self._database_url)
            self._parts.callback(self.database.close)
        except BaseException:
            self._parts.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._parts.close()

    def _configure(self) -> None:
        folder = self.folder
        for name, token in (("admin", self._admin_token), ("gateway", self._gateway_token)):
            (folder / f"{name}.token").write_text(token)
            (folder / f"{name}.token").chmod(0o600)
        (folder / "server.toml").write_text(
            f'database = "{self._database_url}"\nartifacts = "{folder}/artifacts"\n'
            f'admin_token_file = "{folder}/admin.token"\ngateway_token_file = "{folder}/gateway.token"\n'
            f"port = {self.http_port}\n[broker]\nport = {self._uplink_port}\n"
        )
        (folder / "mapping.toml").write_text(MAPPING)
        (folder / "agent.toml").write_text(
            f'site = "{SITE}"\ngateway = "{GATEWAY}"\ndata_dir = "{self.data}"\nstep_ms = {self.beat.step_ms}\n'
            f"history_days = 100\n[clock]\nsimulated = {str(self.simulated).lower()}\n[plant]\nport = {self.plant_port}\n"
            f'[uplink]\nport = {self.link.port}\n[server]\nurl = "{self.scheme}://127.0.0.1:{self.download.port}"\n'
            f'token_file = "{folder}/gateway.token"\nroot = "{folder}/keys/root.json"\n'
            "[forecast]\nhorizon_steps = 4\nevery_steps = 8\n[share]\nblock_steps = 8\n"
        )

    def _start_uplink_broker(self) -> None:
        start_broker(self.processes, self.folder, self._uplink_port, UPLINK)

    def _before_agent(self) -> None:
        """What there is to do on a new gateway, once the server runs."""

    # parts ------------------------------------------------------------------------------------------------------------

    def start(self, part: str) -> None:
        """Starts a part and waits until it answers. Raises TryLater if it does not."""
        began_ms = time.time() * 1000
        self.launch(part)
        if part == SERVER:
            self.wait("the server", lambda: bool(self.api("health")["broker_connected"]))
        elif part == AGENT:
            self.wait("the agent", lambda: self._agent_lives(began_ms))

    def launch(self, part: str) -> None:
        """Starts a part."""
        if part == SERVER:
            config = str(self.folder / "server.toml")
            self.processes.python(SERVER, "server", "run", "--config", config, "--log-level", "WARNING")
        elif part == AGENT:
            self._launch_agent(str(self.folder / "agent.toml"))
        else:
            self._start_uplink_broker()

    def _launch_agent(self, config: str) -> None:
        self.processes.python(AGENT, "edge_agent", "run", "--config", config, "--log-level", "WARNING")

    def run(self, what: str, module: str, *arguments: str) -> None:
        """A command of ours, to its end. Raises NeedsPerson with what it said if it fails."""
        self.processes.python(what, module, *arguments)
        if self.processes.running.pop(what).wait(60):
            raise NeedsPerson(f"{what}: {self.processes.tail(what)}")

    def kill(self, part: str) -> None:
        """kill -9, as a power cut or the kernel's memory killer does it."""
        process = self.processes.running.pop(part)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)

    def _agent_lives(self, since_ms: float) -> bool:
        path = self.data / "status.json"
        told = self.status()
        return bool(told.get("plant_connected")) and path.stat().st_mtime * 1000 >= since_ms

    def api(self, path: str) -> Any:
        """One GET of the admin API."""
        request = Request(  # noqa: S310 - our own loopback address
            f"{self.scheme}://127.0.0.1:{self.http_port}/api/v1/{path}",
            headers={"Authorization": f"Bearer {self._admin_token}"},
        )
        with urlopen(request, timeout=10, context=self.api_context) as answer:  # noqa: S310
            return json.load(answer)

    def status(self) -> dict[str, Any]:
        """What the agent last wrote about itself; empty before it did."""
        try:
            told: dict[str, Any] = json.loads((self.data / "status.json").read_text())
        except (OSError, json.JSONDecodeError):
            return {}
        return told

    def wait(self, what: str, ready: Callable[[], bool], patience_s: float = PATIENCE_S) -> float:
        """Seconds until `ready()`; raises TryLater after `patience_s`."""
        began = time.monotonic()
        while time.monotonic() - began < patience_s:
            self.processes.check()
            try:
                if ready():
                    return time.monotonic() - began
            except (OSError, URLError):
                pass
            time.sleep(0.1)
        raise TryLater(f"{what} took longer than {patience_s:.0f} s; the logs are in {self.folder}")

    # work and books ---------------------------------------------------------------------------------------------------

    @contextmanager
    def at_work(self, ticks_a_second: float = 80.0) -> Iterator[None]:
        """The machines go on while the body breaks things."""
        done, failed = threading.Event(), []

        def work() -> None:
            try:
                while not done.is_set():
                    self.machines.publish(8)
                    done.wait(8 / ticks_a_second)
            except TryLater as error:
                failed.append(error)

        thread = threading.Thread(target=work, name="machines", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join(60)
        if failed:
            raise failed[0]

    def settle(self) -> float:
        """Seconds until nothing but heartbeats waits on the gateway and every reading has been taken in."""
        return self.wait("the gateway's outbox", self._settled)

    def stop_empty(self) -> None:
        """Stops the gateway once its outbox is empty. Raises TryLater where it never is."""

        def emptied() -> bool:
            self.settle()
            self.processes.stop(AGENT, 30)
            if not any(lane["waiting"] for lane in books.lanes_of(self.data / "outbox.db").values()):
                return True
            self.start(AGENT)
            return False

        self.wait("an outbox that is empty when the agent stops", emptied)

    def all_taken_in(self) -> bool:
        """Whether the gateway has every reading that there was."""
        wanted = self.machines.ticks * sum(map(len, SIGNALS.values()))
        return bool(self.status().get("counters", {}).get("intake.stored", 0) >= wanted)

    def _settled(self) -> bool:
        lanes = self.status().get("lanes", {})
        waits = any(lane["waiting"] for name, lane in lanes.items() if name != "metric")
        return bool(lanes) and self.all_taken_in() and not waits

    def books(self, *, full: bool = False) -> Books:
        """Stops the gateway, so that its files stand still, reads everything, and starts it again. `full`: its disk was, so
        that what may be shed or forgotten may be missing, as long as it is told."""
        self.settle()
        self.processes.stop(AGENT, 30)
        try:
            lanes = books.lanes_of(self.data / "outbox.db")
            found = Books()
            self._wait_for_ledger(lanes)
            books.history_holds(found, self.data / "history.db", self.machines, forgets=full)
            books.ledger_holds(found, lanes, self.database, GATEWAY)
            books.blocks_hold(found, self.database, GATEWAY, self.machines, shed=full)
            books.answers_hold(found, self.database, GATEWAY, self.machines.answers)
        finally:
            self.start(AGENT)
        return found

    def _wait_for_ledger(self, lanes: dict[str, dict[str, int]]) -> None:
        """The last batches may still be between broker and database."""

        def arrived() -> bool:
            upto = complete_to(self.api("ledger"), GATEWAY)
            return all(upto.get(name, 0) >= lane["next"] - 1 - lane["waiting"] for name, lane in lanes.items())

        self.wait("the server's ledger", arrived, 20.0)
