"""A TCP proxy that makes a link as bad as links are: slow, jittery, stalled, cut, refused, or down to a few bytes a second.

It speaks no protocol. What is set counts at once, for connections that stand too; `reset` ends them as a pulled cable or a
rebooted firewall does, with a RST and no goodbye."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import threading
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")
PIECE_BYTES = 16_384


@dataclass
class Faults:
    """delay_s, jitter_s: before each piece goes on, jitter evenly between 0 and that. rate: bytes a second in each direction
    of each connection, 0 for no limit. stalled: nothing goes on, connections stand. refused: new connections are reset."""

    delay_s: float = 0.0
    jitter_s: float = 0.0
    rate: float = 0.0
    stalled: bool = False
    refused: bool = False


@dataclass
class Counts:
    """What passed: connections taken, refused and reset; bytes in each direction."""

    taken: int = 0
    refused: int = 0
    reset: int = 0
    up: int = 0
    down: int = 0


@dataclass(eq=False)
class _Connection:
    writers: list[asyncio.StreamWriter] = field(default_factory=list)


class FaultProxy:
    """Listens on loopback and passes on to `port`. A context manager; thread-safe. `seed` makes jitter repeat itself."""

    def __init__(self, port: int, seed: int = 0) -> None:
        self.faults = Faults()
        self.counts = Counts()
        self.port = 0
        self._target = port
        self._random = random.Random(seed)  # noqa: S311 - no secret
        self._connections: set[_Connection] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault proxy", daemon=True)

    def __enter__(self) -> FaultProxy:
        self._thread.start()
        self._server = self._run(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    @contextlib.contextmanager
    def with_faults(self, faults: Faults) -> Iterator[None]:
        """These faults for a while, then none."""
        self.faults = faults
        try:
            yield
        finally:
            self.faults = Faults()

    def reset(self) -> int:
        """Cuts every connection that stands; returns how many there were."""
        return self._run(self._reset())

    def _run(self, what: Coroutine[Any, Any, T]) -> T:
        waiting: Future[T] = asyncio.run_coroutine_threadsafe(what, self._loop)
        return waiting.result(10)

    async def _reset(self) -> int:
        found = list(self._connections)
        for connection in found:
            for writer in connection.writers:
                _cut(writer)
        self.counts.reset += len(found)
        return len(found)

    async def _close(self) -> None:
        self._server.close()
        self.faults = Faults()
        await self._reset()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            await asyncio.wait(others, timeout=3)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.faults.refused:
            self.counts.refused += 1
            _cut(writer)
            return
        try:
            onward, back = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            self.counts.refused += 1
            _cut(writer)
            return
        self.counts.taken += 1
        connection = _Connection([writer, back])
        self._connections.add(connection)
        both = [
            asyncio.create_task(self._pass(reader, back, upward=True)),
            asyncio.create_task(self._pass(onward, writer, upward=False)),
        ]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in both:
                task.cancel()
            self._connections.discard(connection)
            for end in connection.writers:
                end.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, upward: bool) -> None:
        with contextlib.suppress(ConnectionError):
            while piece := await reader.read(PIECE_BYTES):
                await self._hold(len(piece))
                if upward:
                    self.counts.up += len(piece)
                else:
                    self.counts.down += len(piece)
                writer.write(piece)
                await writer.drain()

    async def _hold(self, size: int) -> None:
        faults = self.faults
        wait_s = faults.delay_s + faults.jitter_s * self._random.random() + (size / faults.rate if faults.rate else 0.0)
        if wait_s:
            await asyncio.sleep(wait_s)
        while self.faults.stalled:
            await asyncio.sleep(0.05)


def _cut(writer: asyncio.StreamWriter) -> None:
    """Ends a connection with a RST."""
    end = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
