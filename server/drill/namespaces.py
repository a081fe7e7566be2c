"""A gateway and its uplink's broker in networks of their own, joined by one cable that can really be pulled: two network
namespaces of Linux and a veth pair. Making them needs the right to."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Self

from protocol.errors import NeedsPerson
from server.demo.processes import SBIN, mosquitto, start_broker
from server.drill.site import AGENT, PLANT, UPLINK, Site

GATEWAY_HERE, GATEWAY_PLANT = "198.18.77.1", "198.18.77.2"
HUB_HERE, HUB_SERVER = "198.18.77.5", "198.18.77.6"
GATEWAY_UPLINK, HUB_UPLINK = "198.18.77.9", "198.18.77.10"
"""Two ends of a cable each: this machine and the gateway, this machine and the broker, the gateway and the broker. From the
range for tests of networks (RFC 2544)."""
NOBODY = "02:00:00:00:00:fe"
"""A hardware address that no device has: what goes there is lost without a word."""


class Namespaces:
    """A context manager: networks `gateway` and `hub`, which have a cable to this machine each, and one between them. Raises
    NeedsPerson where they cannot be made."""

    def __init__(self) -> None:
        self._ip = shutil.which("ip", path=SBIN) or ""
        number = os.getpid()
        self.gateway, self.hub = f"mw-gateway-{number}", f"mw-hub-{number}"
        self._plant, self._server, self._cable = f"mwp{number}", f"mws{number}", f"mwc{number}"
        self._made = ExitStack()

    def __enter__(self) -> Self:
        if not self._ip:
            raise NeedsPerson("networks cannot be made here: there is no ip command (Debian: apt-get install iproute2)")
        try:
            for name in (self.gateway, self.hub):
                self._do("netns", "add", name)
                self._made.callback(self._do, "netns", "del", name)
                self._do("-n", name, "link", "set", "lo", "up")
                self._do("netns", "exec", name, "true")
            self._lay(self._plant, "", GATEWAY_HERE, self.gateway, GATEWAY_PLANT)
            self._lay(self._server, "", HUB_HERE, self.hub, HUB_SERVER)
            self._lay(self._cable, self.gateway, GATEWAY_UPLINK, self.hub, HUB_UPLINK)
        except BaseException:
            self._made.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._made.close()

    def inside(self, name: str) -> list[str]:
        """What goes before a command that shall run in a network."""
        return [self._ip, "netns", "exec", name]

    @contextmanager
    def pulled(self) -> Iterator[None]:
        """The cable between gateway and broker has no signal."""
        self._do("-n", self.hub, "link", "set", f"{self._cable}b", "down")
        try:
            yield
        finally:
            self._do("-n", self.hub, "link", "set", f"{self._cable}b", "up")

    @contextmanager
    def losing(self, *, to_hub: bool = True, to_gateway: bool = True) -> Iterator[None]:
        """The cable stands, and what goes this way is lost: no reset, no error, no answer."""
        with ExitStack() as found_again:
            for lost, name, end, address in (
                (to_hub, self.gateway, f"{self._cable}a", HUB_UPLINK),
                (to_gateway, self.hub, f"{self._cable}b", GATEWAY_UPLINK),
            ):
                if lost:
                    place = (address, "dev", end)
                    self._do("-n", name, "neigh", "replace", *place, "lladdr", NOBODY, "nud", "permanent")
                    found_again.callback(self._do, "-n", name, "neigh", "del", *place)
            yield

    def _lay(self, cable: str, near: str, near_address: str, far: str, far_address: str) -> None:
        """A cable, its ends a and b, from a network (empty: this machine's) to another."""
        a, b = f"{cable}a", f"{cable}b"
        at = ("netns", near) if near else ()
        self._do("link", "add", a, *at, "type", "veth", "peer", "name", b, "netns", far)
        if not near:  # with its network it would go when the kernel finds the time
            self._made.callback(self._do, "link", "del", a)
        for name, end, address in ((near, a, near_address), (far, b, far_address)):
            inside = ("-n", name) if name else ()
            self._do(*inside, "address", "add", f"{address}/30", "dev", end)
            self._do(*inside, "link", "set", end, "up")

    def _do(self, *words: str) -> None:
        done = subprocess.run([self._ip, *words], capture_output=True, text=True, check=False)
        if done.returncode:
            raise NeedsPerson(
                f"networks cannot be made here: ip {' '.join(words)}: {done.stderr.strip()}; run the drill as root, or in "
                "a container that may"
            )


class ApartSite(Site):
    """A `Site` whose agent and uplink's broker are in networks of their own, with nothing but `net`'s cable between them.
    Raises NeedsPerson where that cannot be, or without a Mosquitto."""

    net: Namespaces

    def __enter__(self) -> Self:
        if mosquitto() is None:
            raise NeedsPerson("networks of their own need a mosquitto on the PATH (Debian: apt-get install mosquitto)")
        self.net = self._parts.enter_context(Namespaces())
        return super().__enter__()

    def _configure(self) -> None:
        super()._configure()
        config = self.folder / "server.toml"
        config.write_text(f'{config.read_text()}host = "{HUB_SERVER}"\n')

    def _configure_gateway(self) -> None:
        super()._configure_gateway()
        plain = self.agent_config.read_text()
        here = plain.replace("[plant]\n", f'[plant]\nhost = "{GATEWAY_HERE}"\n')
        through = f"[uplink]\nport = {self.link.port}\n"
        direct = f'[uplink]\nhost = "{HUB_UPLINK}"\nport = {self._uplink_port}\n'
        self.agent_config.write_text(here.replace(through, direct))

    def _start_plant_broker(self) -> None:
        self._broker(PLANT, self.plant_port, ("127.0.0.1", GATEWAY_HERE))

    def _start_uplink_broker(self) -> None:
        self._broker(UPLINK, self._uplink_port, (HUB_SERVER, HUB_UPLINK), self.net.inside(self.net.hub))

    def _broker(self, name: str, port: int, addresses: Sequence[str], inside: Sequence[str] = ()) -> None:
        start_broker(self.processes, self.folder, port, name, addresses, inside)

    def _launch_agent(self, config: str) -> None:
        command = [sys.executable, "-m", "edge_agent", "run", "--config", config, "--log-level", "WARNING"]
        self.processes.start(AGENT, [*self.net.inside(self.net.gateway), *command])
