"""`millwright verify`: whether bundles are whole and right on this machine. Each is unpacked, every sum is checked, each of
its forms is loaded and asked the golden vectors on this processor, as an agent does before it serves. Needs no server.

Exit status: 0 every bundle is right here in every form that it holds, 1 one is not (the reason is said), 2 wrong usage. A
form whose engine is not on this machine is said and does not count, if another form is right."""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import msgspec

from edge_agent import config
from edge_agent.config import EngineName, RuntimeSettings
from edge_agent.health import rss_bytes
from edge_agent.once.bundles import archive_of, bundles_at
from edge_agent.runtimes import LoadedModel, answer_golden, load
from edge_agent.runtimes.choice import forms, least_us
from edge_agent.runtimes.proof import Proven
from protocol.bundles import Bundle, digest, unpack
from protocol.card import sized
from protocol.errors import BadBundle, Reason
from protocol.processors import processor_class

TABLES = "numpy"


class Form(msgspec.Struct, frozen=True, kw_only=True):
    """One form of a bundle on this machine. engine: what ran it; call_us: least microseconds of many for one golden input;
    refused: why it is not right here, by reason and detail."""

    engine: str
    outputs: list[Proven] = []
    call_us: float = 0.0
    reason: str = ""
    refused: str = ""


class Verified(msgspec.Struct, frozen=True, kw_only=True):
    """One bundle. right: it may serve here. measured_on: this processor's class; rss_bytes: memory of this process after
    it, with what came before it in the same call; the agent's own libraries are all that is beside it."""

    file: str
    digest: str
    size: int
    right: bool
    model: str = ""
    reason: str = ""
    refused: str = ""
    forms: list[Form] = []
    measured_on: str = ""
    rss_bytes: int = 0


def main(argv: list[str] | None = None) -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        prog="millwright verify",
        description="Whether bundles are whole and right on this machine: sums, golden vectors, time of a call.",
    )
    parser.add_argument("bundle", type=Path, nargs="+", help="a .bundle file, or a folder of them")
    parser.add_argument("--config", type=Path, help="agent.toml: its [runtime] says which engines may be used and how")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")
    options = parser.parse_args(argv)
    runtime = RuntimeSettings() if options.config is None else config.load(options.config).runtime
    found = [verified(file, runtime) for file in bundles_at(options.bundle)]
    if options.json:
        sys.stdout.write(msgspec.json.encode({"bundles": found}).decode() + "\n")
    else:
        sys.stdout.writelines(f"{line}\n" for one in found for line in told(one))
    return 0 if all(one.right for one in found) else 1


def verified(file: Path, runtime: RuntimeSettings) -> Verified:
    """Proves one bundle in each of its forms."""
    archive = archive_of(file)
    one = Verified(file=str(file), digest=digest(archive), size=len(archive), right=False)
    try:
        bundle = unpack(archive)
        engines: list[EngineName | None] = list(forms(bundle, runtime)) or [None]
    except BadBundle as error:
        return msgspec.structs.replace(one, reason=error.reason.value, refused=error.detail)
    tried = [_form(archive, one.digest, bundle, runtime, engine) for engine in engines]
    broken = [form for form in tried if form.refused and form.reason != Reason.UNSUPPORTED_RUNTIME]
    works = any(not form.refused for form in tried)
    first = next((form for form in (*broken, *tried) if form.refused), None) if broken or not works else None
    return msgspec.structs.replace(
        one,
        right=first is None,
        model=f"{bundle.passport.slot} v{bundle.passport.version}",
        reason="" if first is None else first.reason,
        refused="" if first is None else first.refused,
        forms=tried,
        measured_on=_here(runtime.threads),
        rss_bytes=rss_bytes(),
    )


def told(one: Verified) -> Iterator[str]:
    """The same in words."""
    if one.refused and not one.forms:
        yield f"{one.file}: refused, {one.reason}: {one.refused}"
        return
    yield f"{one.file}: {'right' if one.right else 'WRONG'} on this machine, {one.model}, {one.digest}"
    for form in one.forms:
        if form.refused:
            yield f"  {form.engine}: {form.reason}: {form.refused}"
            continue
        yield f"  {form.engine}: {form.call_us:.0f} us a call"
        for output in form.outputs:
            yield (
                f"    {output.output}: off by {output.error:.3g} at most, {output.share:.1%} of what is allowed, "
                f"{output.n} values"
            )
    yield f"  {one.measured_on}; {sized(one.rss_bytes)} of memory in this process"


def _form(archive: bytes, named: str, bundle: Bundle, runtime: RuntimeSettings, engine: EngineName | None) -> Form:
    alone = runtime if engine is None else msgspec.structs.replace(runtime, engines=(engine,))
    try:
        model = load(archive, named, alone)
        call_us = _call_us(model, bundle)
    except BadBundle as error:
        return Form(engine=engine or TABLES, reason=error.reason.value, refused=error.detail)
    return Form(engine=model.engine or TABLES, outputs=list(model.proof), call_us=round(call_us, 1))


def _call_us(model: LoadedModel, bundle: Bundle) -> float:
    """Of one answer, as many as the golden vectors hold being asked in turn."""
    asked = min(len(array) for array in bundle.golden_outputs.values())
    spent = least_us(partial(answer_golden, model, bundle.golden_inputs, bundle.golden_outputs))
    return spent / max(asked, 1)


def _here(threads: int) -> str:
    try:
        cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        cpuinfo = ""
    return processor_class(cpuinfo, platform.machine(), threads)


if __name__ == "__main__":
    sys.exit(main())
