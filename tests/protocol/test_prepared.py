"""Threads that read a type for the first time at once end the process, unless the types were prepared."""

from __future__ import annotations

import subprocess
import sys

import msgspec

from protocol.prepared import prepare

AT_ONCE = """
import sys, threading
import msgspec
from protocol import prepared, sync
print(prepared.prepare() > 20)
sys.setswitchinterval(1e-6)
together = threading.Barrier(6)
def read():
    together.wait()
    for into in (sync.Batch, sync.Ack, sync.Command):
        msgspec.json.Decoder(into)
    sync.decode(b'{"envelopes":[]}', sync.Batch)
threads = [threading.Thread(target=read) for _ in range(6)]
for one in threads: one.start()
for one in threads: one.join()
"""


def test_threads_that_read_a_type_for_the_first_time_do_not_end_the_process() -> None:
    for _ in range(12):  # without `prepare` every second one ended with SIGSEGV
        ended = subprocess.run([sys.executable, "-c", AT_ONCE], capture_output=True, text=True, check=False)
        assert (ended.returncode, ended.stdout) == (0, "True\n"), ended.stderr


def test_what_is_imported_later_is_prepared_by_the_next_call() -> None:
    prepare()
    assert prepare() == 0

    class Later(msgspec.Struct):
        number: int

    assert prepare() == 1
    assert msgspec.json.decode(b'{"number": 1}', type=Later).number == 1
